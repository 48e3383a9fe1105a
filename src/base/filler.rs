//! Memory that is filled from its start. It never writes beyond the end.

#![forbid(unsafe_code)]

/// Memory being filled from its start. `Elf::lay_out` computed its length; bytes that do not fit are not
/// written.
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

    /// Puts `len` zeroes.
    pub(crate) fn skip(&mut self, len: usize) {
        let len = len.min(self.rest.len());
        let (now, rest) = std::mem::take(&mut self.rest).split_at_mut(len);
        now.fill(0);
        self.rest = rest;
    }
}
