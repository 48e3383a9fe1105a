//! `STB_GNU_UNIQUE`: one definition in the whole process, in whatever scope.
//!
//! C++ compilers give this binding to the static data of inline functions and templates, of which
//! every library has a copy, but all must use the same. The first definition that a reference is bound
//! to becomes the process's; later references to that name are bound to it, whatever their scope.
//!
//! `ld.so` never unloads such a library. Here the definition stays as long as its image, and images that are
//! bound to it keep that image. When all are unloaded, the name is free again.
//!
//! Source: glibc `elf/dl-lookup.c`, `do_lookup_unique`.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::base::error::Error;
use crate::base::fallible::{require_memory, try_copy};
use crate::base::sync::{Guard, Lock, Rank};
use crate::elf::symbol::Sym;
use crate::images::group::{ImageRef, LoadGroup};

struct Unique {
    group: Weak<LoadGroup>,
    index: usize,
    symbol: Sym,
}

/// By name.
static TABLE: Lock<BTreeMap<Box<[u8]>, Unique>> = Lock::new(Rank::Unique, BTreeMap::new());

fn table() -> Guard<'static, BTreeMap<Box<[u8]>, Unique>> {
    TABLE.lock()
}

/// The unique definitions that members of a load group were bound to first, by name.
pub(crate) type FirstUses = BTreeMap<Box<[u8]>, FirstUse>;

/// A unique definition that a member of a load group was bound to first.
#[derive(Clone, Copy)]
pub(crate) struct FirstUse {
    /// The member that defines it.
    pub member: usize,
    pub symbol: Sym,
}

/// The image with the process's definition of `name`, and the symbol there.
pub(crate) fn definition(name: &[u8]) -> Option<(ImageRef, Sym)> {
    let table = table();
    let unique = table.get(name)?;
    Some((ImageRef::new(unique.group.upgrade()?, unique.index), unique.symbol))
}

/// Makes the definitions of a loaded group the process's, but for names that another group has entered
/// meanwhile. Entries end with their group.
pub(crate) fn enter(group: &Arc<LoadGroup>, first_uses: &FirstUses) -> Result<(), Error> {
    if first_uses.is_empty() {
        return Ok(());
    }
    let mut table = table();
    table.retain(|_, unique| unique.group.strong_count() > 0);
    for (name, FirstUse { member, symbol }) in first_uses {
        if table.contains_key(name) {
            continue;
        }
        require_memory()?;
        let name = try_copy(name)?.into_boxed_slice();
        let group = Arc::downgrade(group);
        table.insert(name, Unique { group, index: *member, symbol: *symbol });
    }
    Ok(())
}
