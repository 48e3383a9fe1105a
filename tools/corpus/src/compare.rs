//! Compares what the two loaders made of one library, and looks for the reason where they differ.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use goblin::elf::Elf;
use goblin::elf::header::EM_X86_64;
use goblin::elf::sym::STB_GNU_UNIQUE;

use crate::library_file::{Facts, without_constructors};
use crate::process::MEMBER;
use crate::spawn::{Ended, spawn};
use crate::values::{Dump, Value};
use crate::verdict::{Pair, Reason, Verdict};
use crate::{Options, Result};

/// What became of one library.
pub struct Outcome {
    pub path: PathBuf,
    pub system: Result<(), String>,
    pub memdl: Result<(), String>,
    pub resident: bool,
    /// Loaded with its folder as `LD_LIBRARY_PATH`.
    pub in_its_folder: bool,
    pub symbols: usize,
    pub words: usize,
    pub reasons: BTreeMap<Reason, usize>,
    pub symbol_differences: Vec<String>,
    pub word_differences: Vec<String>,
    /// How the report before the load disagrees with it.
    pub report: Option<String>,
    /// How closing and leaving differ: `dlopen`'s side, memdl's.
    pub exit: Option<(String, String)>,
    pub time: Duration,
}

pub fn compare(path: &Path, folder: &Path, options: &Options) -> Result<Outcome> {
    let outcome = compare_with(path, folder, options)?;
    if outcome.system.is_ok() || outcome.memdl.is_ok() || options.library_path.is_some() {
        return Ok(outcome);
    }
    let library_path = path.parent().map(|folder| folder.as_os_str().to_owned());
    let again = compare_with(path, folder, &Options { library_path, ..options.clone() })?;
    let is_loaded = again.system.is_ok() || again.memdl.is_ok();
    Ok(if is_loaded { Outcome { in_its_folder: true, ..again } } else { outcome })
}

fn compare_with(path: &Path, folder: &Path, options: &Options) -> Result<Outcome> {
    let started = Instant::now();
    let system = spawn("dlopen", path, &folder.join("dlopen"), options)?;
    let memdl = spawn("memdl", path, &folder.join("memdl"), options)?;
    let side = |ended: &Ended| if ended.loaded { Ok(()) } else { Err(ended.reason()) };
    let mut outcome = Outcome {
        path: path.to_owned(),
        system: side(&system),
        memdl: side(&memdl),
        resident: system.resident,
        in_its_folder: false,
        symbols: 0,
        words: 0,
        reasons: BTreeMap::new(),
        symbol_differences: Vec::new(),
        word_differences: Vec::new(),
        report: memdl.report.clone(),
        exit: None,
        time: started.elapsed(),
    };
    if !(system.loaded && memdl.loaded) {
        if system.loaded {
            let ordered = spawn("needed-first", path, &folder.join("needed-first"), options)?;
            if !ordered.loaded {
                let told =
                    format!("; so fails dlopen, needed libraries first: {}", ordered.reason());
                outcome.memdl = outcome.memdl.map_err(|reason| reason + &told);
            }
        }
        return Ok(outcome);
    }
    if system.dumped != memdl.dumped {
        let told =
            format!("dumping: dlopen {}, memdl {} {}", system.end(), memdl.end(), memdl.stderr);
        outcome.symbol_differences.push(told);
    }
    if system.end() != memdl.end() || system.closed != memdl.closed {
        let tell = |ended: &Ended| {
            let when = if ended.closed { "after close" } else { "in close" };
            let stderr = if ended.end() == "exit 0" { "" } else { &ended.stderr };
            format!("{} {when} {stderr}", ended.end())
        };
        outcome.exit = Some((tell(&system), tell(&memdl)));
    }
    if let (Some(system), Some(memdl)) = (&system.dump, &memdl.dump) {
        let facts = Facts::read(&fs::read(path)?)?;
        let both = Both { facts: &facts, system, memdl };
        // One for both: symbols lie in the same block of thread-local storage as words.
        let mut pair = Pair::new(system, memdl);
        let words = both.open_words(&mut pair, &mut outcome);
        let symbols = both.open_symbols(&mut pair, &mut outcome);
        outcome.symbol_differences.extend(memdl.listing.iter().cloned());
        if !(words.is_empty() && symbols.is_empty()) {
            let more = MoreRuns::of(path, folder, options)?;
            both.explain_words(words, &more, &mut outcome);
            both.explain_symbols(symbols, &more, &mut outcome);
        }
    }
    outcome.time = started.elapsed();
    Ok(outcome)
}

/// Whether a value is where another library defines this symbol as `STB_GNU_UNIQUE`.
fn is_unique(dump: &Dump, value: Value, name: Option<&str>) -> bool {
    let (Value::Library(object, offset), Some(name)) = (value, name) else { return false };
    let path = Pair::object(dump, object);
    let Ok(bytes) = fs::read(path.strip_prefix(MEMBER).unwrap_or(path)) else { return false };
    let Ok(elf) = Elf::parse(&bytes) else { return false };
    elf.dynsyms.iter().any(|symbol| {
        symbol.st_bind() == STB_GNU_UNIQUE
            && symbol.st_value == offset
            && elf.dynstrtab.get_at(symbol.st_name) == Some(name)
    })
}

/// What both loaders made of a library's words and symbols.
struct Both<'a> {
    facts: &'a Facts,
    system: &'a Dump,
    memdl: &'a Dump,
}

/// A symbol that differs: its place in [`Dump::symbols`], its name, and the difference in words.
struct OpenSymbol<'a> {
    at: usize,
    name: &'a str,
    told: String,
}

impl<'a> Both<'a> {
    /// Compares the words. The places of those that differ for no reason known yet.
    fn open_words(&self, pair: &mut Pair<'_>, outcome: &mut Outcome) -> Vec<usize> {
        let mut open = Vec::new();
        for (index, place) in self.facts.places.iter().enumerate() {
            let (Some(&a), Some(&b)) = (self.system.words.get(index), self.memdl.words.get(index))
            else {
                outcome.word_differences.push(format!("word {index} is not there"));
                break;
            };
            outcome.words += 1;
            match pair.verdict(a, b, place.symbol.as_deref(), Some(place.r_type)) {
                Verdict::Equal => {}
                Verdict::Explained(reason) => *outcome.reasons.entry(reason).or_default() += 1,
                Verdict::Different => open.push(index),
            }
        }
        // One thread-local alone says nothing about its block: what was not consistent stays so.
        let (inconsistent, open): (Vec<usize>, Vec<usize>) = open
            .into_iter()
            .partition(|&index| matches!(self.memdl.words[index], Value::OwnThreadLocal(_)));
        for index in inconsistent {
            let place = &self.facts.places[index];
            outcome.word_differences.push(format!(
                "{:#x} ({}) {}: dlopen {}, memdl {}",
                place.at,
                self.facts.section(place.at),
                place.symbol.as_deref().unwrap_or(""),
                self.system.tell(self.system.words[index]),
                self.memdl.tell(self.memdl.words[index])
            ));
        }
        open
    }

    /// Compares the symbols. Those that differ for no reason known yet.
    fn open_symbols(&self, pair: &mut Pair<'_>, outcome: &mut Outcome) -> Vec<OpenSymbol<'a>> {
        let mut open = Vec::new();
        for (index, export) in self.facts.exports.iter().enumerate() {
            for (exact, version) in [(0, None), (1, export.version.as_deref())] {
                if exact == 1 && version.is_none() {
                    continue;
                }
                let at = index * 2 + exact;
                let (Some(&a), Some(&b)) =
                    (self.system.symbols.get(at), self.memdl.symbols.get(at))
                else {
                    continue;
                };
                outcome.symbols += 1;
                match pair.verdict(a, b, Some(&export.name), None) {
                    Verdict::Equal => {}
                    Verdict::Explained(reason) => *outcome.reasons.entry(reason).or_default() += 1,
                    Verdict::Different => {
                        let told = format!(
                            "{}{}: dlsym {}, get {}",
                            export.name,
                            version.map_or(String::new(), |version| format!("@{version}")),
                            self.system.tell(a),
                            self.memdl.tell(b)
                        );
                        open.push(OpenSymbol { at, name: &export.name, told });
                    }
                }
            }
        }
        open
    }

    /// Counts the reasons for which words differ, and lists the words without one.
    fn explain_words(&self, open: Vec<usize>, more: &MoreRuns, outcome: &mut Outcome) {
        for index in open {
            let place = &self.facts.places[index];
            let word = self.memdl.words[index];
            let is_steady = more.again.as_ref().is_none_or(|again| {
                self.system.words.get(index).map(|value| self.system.tell(*value))
                    == again.words.get(index).map(|value| again.tell(*value))
            });
            let name = place.symbol.as_deref();
            let reason = if self.settles(&more.bare_system, &more.bare_memdl, index) {
                Reason::Constructors
            } else if self.is_same_in_order(more, |dump| &dump.words, index, name)
                || self.settles(&more.bare_ordered, &more.bare_memdl, index)
            {
                Reason::NeededFirst
            } else if is_unique(self.memdl, word, name) {
                Reason::Unique
            } else if !is_steady {
                Reason::Unsteady
            } else {
                outcome.word_differences.push(self.word_in_words(index, more));
                continue;
            };
            *outcome.reasons.entry(reason).or_default() += 1;
        }
    }

    fn word_in_words(&self, index: usize, more: &MoreRuns) -> String {
        let place = &self.facts.places[index];
        let ordered = more.ordered.as_ref();
        format!(
            "{:#x} ({}) {} {}: dlopen {} (needed libraries first {}), memdl {}",
            place.at,
            self.facts.section(place.at),
            goblin::elf::reloc::r_to_str(place.r_type, EM_X86_64),
            place.symbol.as_deref().unwrap_or(""),
            self.system.tell(self.system.words[index]),
            ordered
                .and_then(|ordered| Some(ordered.tell(*ordered.words.get(index)?)))
                .unwrap_or_else(|| "?".into()),
            self.memdl.tell(self.memdl.words[index])
        )
    }

    /// Counts the reasons for which symbols differ, and lists the symbols without one.
    fn explain_symbols(&self, open: Vec<OpenSymbol<'_>>, more: &MoreRuns, outcome: &mut Outcome) {
        for OpenSymbol { at, name, told } in open {
            let symbol = self.memdl.symbols[at];
            let is_thread_local = matches!(symbol, Value::OwnThreadLocal(_));
            if !is_thread_local && self.is_same_in_order(more, |dump| &dump.symbols, at, Some(name))
            {
                *outcome.reasons.entry(Reason::NeededFirst).or_default() += 1;
            } else if is_unique(self.memdl, symbol, Some(name)) {
                *outcome.reasons.entry(Reason::Unique).or_default() += 1;
            } else {
                outcome.symbol_differences.push(told);
            }
        }
    }

    /// Whether two other runs agree on a word.
    fn settles(&self, system: &Option<Dump>, memdl: &Option<Dump>, index: usize) -> bool {
        let (Some(system), Some(memdl)) = (system, memdl) else { return false };
        let (Some(&a), Some(&b)) = (system.words.get(index), memdl.words.get(index)) else {
            return false;
        };
        let place = &self.facts.places[index];
        let mut pair = Pair::new(system, memdl);
        let verdict = pair.verdict(a, b, place.symbol.as_deref(), Some(place.r_type));
        !matches!(verdict, Verdict::Different)
    }

    /// Whether memdl agrees with `dlopen` where that opened the needed libraries first.
    fn is_same_in_order(
        &self,
        more: &MoreRuns,
        values: fn(&Dump) -> &Vec<Value>,
        index: usize,
        name: Option<&str>,
    ) -> bool {
        let Some(ordered) = &more.ordered else { return false };
        let (Some(&a), Some(&b)) = (values(ordered).get(index), values(self.memdl).get(index))
        else {
            return false;
        };
        let mut pair = Pair::new(ordered, self.memdl);
        !matches!(pair.verdict(a, b, name, None), Verdict::Different)
    }
}

/// Runs that tell why a word or a symbol differs. What constructors wrote does not differ without
/// them; what the order of libraries decided does not differ from a `dlopen` with that order.
struct MoreRuns {
    /// Without constructors, by `dlopen`.
    bare_system: Option<Dump>,
    bare_memdl: Option<Dump>,
    /// Without constructors, needed libraries first.
    bare_ordered: Option<Dump>,
    /// `dlopen` once more.
    again: Option<Dump>,
    /// `dlopen`, needed libraries first.
    ordered: Option<Dump>,
}

impl MoreRuns {
    fn of(path: &Path, folder: &Path, options: &Options) -> Result<MoreRuns> {
        let bare = folder.join("bare").join(path.file_name().ok_or("no file name")?);
        fs::create_dir_all(folder.join("bare"))?;
        fs::write(&bare, without_constructors(fs::read(path)?)?)?;
        let dump = |how: &str, path: &Path| {
            spawn(how, path, &folder.join(how), options).map(|ended| ended.dump)
        };
        let (bare_system, bare_memdl) = (dump("dlopen", &bare)?, dump("memdl", &bare)?);
        let bare_ordered = dump("needed-first", &bare)?;
        fs::remove_file(&bare)?;
        let (again, ordered) = (dump("dlopen", path)?, dump("needed-first", path)?);
        Ok(MoreRuns { bare_system, bare_memdl, bare_ordered, again, ordered })
    }
}
