//! Whether two values are the same, or differ for a reason that is accepted.

use std::collections::HashMap;
use std::fmt;

use goblin::elf::reloc::R_X86_64_TLSDESC;

use crate::process::MEMBER;
use crate::values::{Dump, Value};

/// Why a difference is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Service,
    ThreadLocal,
    Descriptor,
    Copy,
    Member,
    Anonymous,
    Constructors,
    NeededFirst,
    Unique,
    Unsteady,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Service => "service",
            Reason::ThreadLocal => "thread-local storage",
            Reason::Descriptor => "TLS descriptor",
            Reason::Copy => "copy in the process",
            Reason::Member => "member",
            Reason::Anonymous => "anonymous memory",
            Reason::Constructors => "constructors",
            Reason::NeededFirst => "needed libraries first",
            Reason::Unique => "another unique definition",
            Reason::Unsteady => "unsteady",
        })
    }
}

pub enum Verdict {
    Equal,
    Explained(Reason),
    Different,
}

/// What two loads of one library found.
pub struct Pair<'a> {
    pub system: &'a Dump,
    pub memdl: &'a Dump,
    /// memdl's address of the block minus nothing: learned from the first thread-local met.
    pub block: Option<u64>,
    /// The same of members, by `dlopen`'s number of the library.
    pub member_blocks: HashMap<u32, u64>,
}

impl<'a> Pair<'a> {
    pub fn new(system: &'a Dump, memdl: &'a Dump) -> Pair<'a> {
        Pair { system, memdl, block: None, member_blocks: HashMap::new() }
    }

    pub fn object(dump: &Dump, index: u32) -> &str {
        dump.objects.get(index as usize).map_or("?", String::as_str)
    }

    /// What two values are to each other, `dlopen`'s and memdl's. They are a relocated word (`r_type`)
    /// or where `symbol` is.
    pub fn verdict(
        &mut self,
        a: Value,
        b: Value,
        symbol: Option<&str>,
        r_type: Option<u32>,
    ) -> Verdict {
        if let Some(verdict) = self.verdict_on_thread_locals(a, b, r_type) {
            return verdict;
        }
        match (a, b) {
            (Value::Anonymous, Value::Anonymous) => Verdict::Explained(Reason::Anonymous),
            (Value::Library(a, x), Value::Library(b, y)) if self.is_same(a, b) && x == y => {
                Verdict::Equal
            }
            (Value::Library(a, x), Value::Library(b, y))
                if x == y
                    && is_member(Pair::object(self.system, a), Pair::object(self.memdl, b)) =>
            {
                Verdict::Explained(Reason::Member)
            }
            (Value::Own(x), Value::Library(copy, y)) if x == y && self.is_copy(copy) => {
                Verdict::Explained(Reason::Copy)
            }
            (Value::Library(..), Value::Library(0, _))
                if symbol.is_some_and(memdl::internals::is_service) =>
            {
                Verdict::Explained(Reason::Service)
            }
            (Value::Library(..), _) => Verdict::Different,
            _ if a == b => Verdict::Equal,
            _ => Verdict::Different,
        }
    }

    /// The verdict where both are thread-local variables, or both modules of such.
    fn verdict_on_thread_locals(
        &mut self,
        a: Value,
        b: Value,
        r_type: Option<u32>,
    ) -> Option<Verdict> {
        Some(match (a, b) {
            (Value::LibraryThreadLocal(library, offset), Value::OwnThreadLocal(address))
                if self.has_member(library) =>
            {
                let block = address.wrapping_sub(offset);
                if *self.member_blocks.entry(library).or_insert(block) == block {
                    Verdict::Explained(Reason::Member)
                } else {
                    Verdict::Different
                }
            }
            (Value::LibraryModule(library), Value::OwnModule) if self.has_member(library) => {
                Verdict::Explained(Reason::Member)
            }
            (Value::LibraryThreadLocal(a, x), Value::LibraryThreadLocal(b, y))
                if self.is_same(a, b) && x == y =>
            {
                Verdict::Equal
            }
            (Value::LibraryModule(a), Value::LibraryModule(b)) if self.is_same(a, b) => {
                Verdict::Equal
            }
            (Value::OwnModule, Value::OwnModule) => Verdict::Explained(Reason::ThreadLocal),
            (Value::OwnThreadLocal(offset), Value::OwnThreadLocal(address)) => {
                let block = address.wrapping_sub(offset);
                if *self.block.get_or_insert(block) != block {
                    Verdict::Different
                } else if r_type == Some(R_X86_64_TLSDESC) {
                    Verdict::Explained(Reason::Descriptor)
                } else {
                    Verdict::Explained(Reason::ThreadLocal)
                }
            }
            (Value::OwnThreadLocal(x), Value::LibraryThreadLocal(copy, y))
                if x == y && self.is_copy(copy) =>
            {
                Verdict::Explained(Reason::Copy)
            }
            (Value::OwnModule, Value::LibraryModule(copy)) if self.is_copy(copy) => {
                Verdict::Explained(Reason::Copy)
            }
            (Value::LibraryThreadLocal(..) | Value::LibraryModule(_), _) => Verdict::Different,
            _ => return None,
        })
    }

    fn is_same(&self, of_system: u32, of_memdl: u32) -> bool {
        Pair::object(self.system, of_system) == Pair::object(self.memdl, of_memdl)
    }

    fn is_copy(&self, of_memdl: u32) -> bool {
        Pair::object(self.memdl, of_memdl) == "the copy in the process"
    }

    fn has_member(&self, of_system: u32) -> bool {
        let system = Pair::object(self.system, of_system);
        self.memdl.objects.iter().any(|memdl| is_member(system, memdl))
    }
}

/// Whether the library that memdl's child calls `memdl` is a member from the file that `dlopen`'s child
/// calls `system`.
fn is_member(system: &str, memdl: &str) -> bool {
    memdl.strip_prefix(MEMBER) == Some(system)
}
