//! Where an instance of an image lies, for what is made from its file.

#![forbid(unsafe_code)]

use crate::base::addr::LoadBias;

/// Where an instance of an image is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance {
    pub load_bias: LoadBias,
    pub thread_locals: ThreadLocals,
}

/// Where every thread has its block of an instance's thread-local variables, seen from its block
/// of the first module's, which is where debuggers start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThreadLocals {
    /// The block is this far away.
    AtDistance(i64),
    /// A pointer to the block is this far away.
    BehindPointerAt(i64),
    /// There is no constant way to it, or no such block.
    Elsewhere,
}
