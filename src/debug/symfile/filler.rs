//! Memory that is filled from its start.

#![forbid(unsafe_code)]

/// Memory being filled from its start. Its length was told by [`Elf::lay_out`]; what would not fit is
/// not written.
pub(crate) struct Filler<'m> {
    rest: &'m mut [u8],
}

impl<'m> Filler<'m> {
    pub(crate) fn new(memory: &'m mut [u8]) -> Filler<'m> {
        Filler { rest: memory }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.rest.len());
        let (now, rest) = std::mem::take(&mut self.rest).split_at_mut(len);
        now.copy_from_slice(bytes.split_at(len).0);
        self.rest = rest;
    }

    /// Puts so many zeroes.
    pub(crate) fn skip(&mut self, len: usize) {
        let len = len.min(self.rest.len());
        let (now, rest) = std::mem::take(&mut self.rest).split_at_mut(len);
        now.fill(0);
        self.rest = rest;
    }
}
