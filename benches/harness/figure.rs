//! Which pictures there are, and which of the tables in `benches/README.md` each shows. They are drawn from the tables
//! alone, so that both have the same numbers.

use super::plot::{self, Across, Panel};

/// A table of the document.
struct Table<'a> {
    title: &'a str,
    head: Vec<&'a str>,
    rows: Vec<Vec<&'a str>>,
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// All tables that have a title.
fn tables(text: &str) -> Vec<Table<'_>> {
    let mut tables: Vec<Table<'_>> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(title) = line.strip_prefix("**").and_then(|rest| rest.strip_suffix("**")) else {
            continue;
        };
        let mut table = lines.by_ref().skip_while(|line| line.is_empty());
        let head = table.next().map(cells).unwrap_or_default();
        let rows = table.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect();
        tables.push(Table { title, head, rows });
    }
    tables
}

fn number(text: &str) -> Option<f64> {
    text.replace(',', "").parse().ok()
}

/// `38.1 (3.63)`: the time, or how many times as fast.
#[derive(Clone, Copy)]
enum Of {
    Time,
    Ratio,
}

impl Of {
    fn cell(self, cell: &str) -> Option<f64> {
        match self {
            Of::Time => number(cell.split(' ').next()?),
            Of::Ratio => number(cell.split_once('(')?.1.strip_suffix(')')?),
        }
    }
}

/// Some columns of a table. `way` says which way a column is of, if it is shown. `None` if the document lacks the table:
/// it is the report of a part of the benchmarks.
fn panel(
    tables: &[Table<'_>],
    table: &str,
    (title, measured, of): (&str, &str, Of),
    way: impl Fn(&str) -> Option<String>,
) -> Option<Panel> {
    let table = tables.iter().find(|it| it.title.starts_with(table))?;
    let names = || table.rows.iter().map(|row| row[0]);
    let numbers: Option<Vec<f64>> = names().map(number).collect();
    let across = match numbers {
        Some(values) => Across::Numbers { label: table.head[0].to_owned(), values },
        None => Across::Names(names().map(str::to_owned).collect()),
    };
    let columns = table.head.iter().enumerate().skip(1);
    let shown = columns.filter_map(|(at, name)| Some((at, way(name)?)));
    let shown = shown.filter(|(_, way)| plot::is_shown(way));
    let ways =
        shown.map(|(at, way)| (way, table.rows.iter().map(|row| of.cell(row.get(at)?)).collect()));
    let mut ways: Vec<(String, Vec<Option<f64>>)> = ways.collect();
    ways.retain(|(_, values)| values.iter().any(Option::is_some));
    let (title, measured) = (title.to_owned(), measured.to_owned());
    Some(Panel { title, measured, across, ways })
}

const LOAD: &str = "Load alone";
const WHOLE: &str = "Load, look up, first call, unload";
const FIRST: &str = "First load in a fresh process";
const THREADS: &str = "Loads of all threads";
const LIVE: &str = "By live images";
const TIMES: &str = "times as fast as memfd + dlopen";

/// Of a table in which each way is a column.
fn by_way(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// Loads of a library by threads: columns such as `tiny, load`.
fn threads(tables: &[Table<'_>], library: &str) -> Option<Panel> {
    let way = |name: &str| Some(name.strip_prefix(library)?.strip_prefix(", ")?.to_owned());
    let title = format!("Loads and unloads of {library}, all threads");
    panel(tables, THREADS, (&title, "thousand a second", Of::Time), way)
}

/// What takes so long with so many live images: columns such as `load` and `memfd: load`.
fn live(tables: &[Table<'_>], title: &str, what: &str) -> Option<Panel> {
    let way = |name: &str| {
        let (way, is_of) = name.split_once(": ").unwrap_or(("load", name));
        let way = if way == "memfd" { "memfd, mapped" } else { way };
        (is_of == what).then(|| way.to_owned())
    };
    panel(tables, LIVE, (title, "µs", Of::Time), way)
}

/// All pictures of the document, with the names of their files.
pub fn pictures(document: &str) -> Vec<(&'static str, String)> {
    let tables = &tables(document);
    let growth = |table, title| panel(tables, table, (title, "µs", Of::Time), by_way);
    let pictures = [
        (
            "figure.svg",
            vec![
                panel(
                    tables,
                    FIRST,
                    ("First load in a fresh process", "µs for a load", Of::Time),
                    by_way,
                ),
                threads(tables, "tiny"),
                live(tables, "One more load, by live images", "load"),
                threads(tables, "libsqlite3"),
            ],
        ),
        (
            "load.svg",
            vec![
                panel(tables, LOAD, ("Load alone", TIMES, Of::Ratio), by_way),
                panel(tables, WHOLE, (WHOLE, TIMES, Of::Ratio), by_way),
            ],
        ),
        (
            "growth.svg",
            vec![
                growth("Load, by the size", "Load, by the size of the file"),
                growth("Load, by relative", "Load, by relative relocations"),
                growth("Load, by imported", "Load, by imported symbols"),
                growth("Load of libsqlite3", "Load of libsqlite3, by host libraries"),
                live(tables, "Load, by live images", "load"),
                live(tables, "Unload, by live images", "unload"),
                live(tables, "Throw, by live images", "throw"),
                live(tables, "Lookup, by live images", "get"),
                threads(tables, "tiny"),
                threads(tables, "libsqlite3"),
            ],
        ),
    ];
    let pictures = pictures
        .into_iter()
        .map(|(name, panels)| (name, panels.into_iter().flatten().collect::<Vec<Panel>>()));
    let pictures = pictures.filter(|(_, panels)| !panels.is_empty());
    pictures.map(|(name, panels)| (name, plot::page(&panels, 2))).collect()
}
