//! Lazy binding: which images allow it, and the function that binds a call when it is first made.
//!
//! The PLT's entry and the store are in `images/`; choosing the definition is [`bind_call`].
//!
//! Sources: psABI "Procedure Linkage Table"; glibc `elf/dl-runtime.c`.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use crate::arch::RelocKind;
use crate::base::error::{Error, Place};
use crate::base::fallible::{require_memory, try_collect};
use crate::elf::plan::Plan;
use crate::elf::rela::Rela;
use crate::host::library::Resolvers;
use crate::images::group::{CallBinder, LoadGroup, LoadedImage, Provider};
use crate::images::named;
use crate::link::bind::{Outcome, bind_call};
use crate::link::bound::Target;
use crate::load::settings::Settings;
use crate::memory::bytes::Image;

/// Whether an image's calls can be bound lazily. The image must allow it, the words at `DT_PLTGOT` must be
/// writable while it is relocated, and all calls must be in the PLT's table: a `JUMP_SLOT` of another
/// table need not lead to a PLT entry.
pub(super) fn may_bind_lazily(image: &Image<'_>, plan: &Plan) -> bool {
    let decoded = &image.decoded;
    let words = decoded.plt_got.and_then(|start| Some(start..start.checked_add(24)?));
    let is_writable = words.is_some_and(|words| {
        plan.segments.iter().any(|segment| {
            let Range { start, end } = segment.stated;
            segment.access.write && start <= words.start && words.end <= end
        })
    });
    let is_call = |rela: Rela| decoded.machine.reloc_kind(rela.r_type) == Some(RelocKind::JumpSlot);
    is_writable && !decoded.relocations.relas_outside_plt(image).any(is_call)
}

impl Settings {
    /// Returns the function that binds the calls of a group that is prepared with these settings.
    pub(super) fn call_binder(&self, searchlist: Vec<Provider>) -> Arc<CallBinder> {
        let settings = self.clone();
        Arc::new(move |group: &LoadGroup, member: usize, symbol: u32| {
            require_memory()?;
            let images = || (0..group.len()).map(|index| group.member(index));
            let LoadedImage { name, decoded, .. } = group.member(member);
            let bind = |later: Vec<Provider>| {
                let tables = try_collect(images().map(|loaded| loaded.symbols()))?;
                let of_system = try_collect(images().map(|loaded| loaded.of_system))?;
                let searchlist = try_collect(searchlist.iter().cloned().chain(later))?;
                let order = settings.lookup_scope(searchlist, tables, of_system, Resolvers::Run)?;
                let mut outcome = Outcome::default();
                let symbolic = decoded.symbolic;
                let target = bind_call(member, name, symbolic, symbol, &order, &mut outcome)?;
                Ok::<_, Error>((target, outcome))
            };
            let (mut target, mut outcome) = bind(Vec::new())?;
            if !outcome.missing.is_empty() {
                (target, outcome) = bind(named::later_scopes(group)?)?;
            }
            if !outcome.refused.is_empty() {
                let (image, symbols) = (name.to_string(), outcome.refused);
                return Err(Error::RefusedImports { image, symbols });
            }
            if !outcome.missing.is_empty() {
                let (libraries, versions) = (vec![], vec![]);
                let symbols = outcome.missing;
                return Err(Error::Missing {
                    image: name.to_string(),
                    libraries,
                    versions,
                    symbols,
                });
            }
            let function = match target {
                Target::Address(address) => address,
                Target::Member { member, st_value } | Target::MemberIfunc { member, st_value } => {
                    let address = group.member(member).mapping.load_bias().apply(st_value);
                    let is_ifunc = matches!(target, Target::MemberIfunc { .. });
                    if is_ifunc { group.member(member).call_ifunc(address) } else { address }
                }
                Target::MemberTls { .. } | Target::Tls { .. } => {
                    let what = "a call of a thread-local variable";
                    return Err(Error::malformed(what, Place::Symbol(symbol)));
                }
            };
            Ok((function, outcome.dependencies))
        })
    }
}
