//! Addresses and words in terms that do not depend on where things lie, and the file in which a child
//! leaves them for its parent.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::Result;

/// A word, or what a symbol resolved to, in terms that do not depend on where things lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// There is no such symbol, or it is null.
    Missing,
    /// Points nowhere.
    Number(u64),
    /// Stated address in the library itself.
    Own(u64),
    /// Another library and an offset from its base.
    Library(u32, u64),
    Anonymous,
    /// The module number of the library itself.
    OwnModule,
    LibraryModule(u32),
    /// In the library's own thread-local block. `dlopen`'s child knows the offset in the block;
    /// in memdl's child it is an address.
    OwnThreadLocal(u64),
    LibraryThreadLocal(u32, u64),
}

impl Value {
    fn write(self, out: &mut impl Write) -> io::Result<()> {
        let (tag, object, value) = match self {
            Value::Missing => (0, 0, 0),
            Value::Number(value) => (1, 0, value),
            Value::Own(at) => (2, 0, at),
            Value::Library(object, offset) => (3, object, offset),
            Value::Anonymous => (4, 0, 0),
            Value::OwnModule => (5, 0, 0),
            Value::LibraryModule(object) => (6, object, 0),
            Value::OwnThreadLocal(value) => (7, 0, value),
            Value::LibraryThreadLocal(object, offset) => (8, object, offset),
        };
        let mut record = [0; 13];
        record[0] = tag;
        record[1..5].copy_from_slice(&u32::to_le_bytes(object));
        record[5..].copy_from_slice(&u64::to_le_bytes(value));
        out.write_all(&record)
    }

    fn read(record: &[u8]) -> Option<Value> {
        let object = u32::from_le_bytes(record.get(1..5)?.try_into().ok()?);
        let value = u64::from_le_bytes(record.get(5..13)?.try_into().ok()?);
        Some(match record[0] {
            0 => Value::Missing,
            1 => Value::Number(value),
            2 => Value::Own(value),
            3 => Value::Library(object, value),
            4 => Value::Anonymous,
            5 => Value::OwnModule,
            6 => Value::LibraryModule(object),
            7 => Value::OwnThreadLocal(value),
            _ => Value::LibraryThreadLocal(object, value),
        })
    }
}

/// What a child wrote.
#[derive(Default)]
pub struct Dump {
    /// Paths of libraries, by the numbers in values; 0 is this program.
    pub objects: Vec<String>,
    /// Two for each export: by name, and by name and version.
    pub symbols: Vec<Value>,
    pub words: Vec<Value>,
    /// How `Library::symbols` differs from the file's table.
    pub listing: Vec<String>,
}

impl Dump {
    pub fn read(path: &Path) -> Option<Dump> {
        let bytes = fs::read(path).ok()?;
        let mut rest = &bytes[..];
        let mut strings = Vec::new();
        for _ in 0..2 {
            let (len, tail) = rest.split_first_chunk::<8>()?;
            let (text, tail) = tail.split_at_checked(u64::from_le_bytes(*len) as usize)?;
            strings.push(String::from_utf8_lossy(text).lines().map(str::to_owned).collect());
            rest = tail;
        }
        let mut values = Vec::new();
        for _ in 0..2 {
            let (len, tail) = rest.split_first_chunk::<8>()?;
            let len = usize::try_from(u64::from_le_bytes(*len)).ok()?.checked_mul(13)?;
            let (records, tail) = tail.split_at_checked(len)?;
            values.push(records.chunks_exact(13).filter_map(Value::read).collect());
            rest = tail;
        }
        let (words, symbols) = (values.pop()?, values.pop()?);
        let (listing, objects) = (strings.pop()?, strings.pop()?);
        Some(Dump { objects, symbols, words, listing })
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        for strings in [&self.objects, &self.listing] {
            let text: String = strings
                .iter()
                .flat_map(|line| [&line.replace('\n', " "), "\n"].map(String::from))
                .collect();
            out.write_all(&(text.len() as u64).to_le_bytes())?;
            out.write_all(text.as_bytes())?;
        }
        for values in [&self.symbols, &self.words] {
            out.write_all(&(values.len() as u64).to_le_bytes())?;
            values.iter().try_for_each(|value| value.write(&mut out))?;
        }
        Ok(out.flush()?)
    }

    /// A value in words.
    pub fn tell(&self, value: Value) -> String {
        let name = |object: u32| {
            let path = self.objects.get(object as usize).map_or("?", String::as_str);
            path.rsplit('/').next().unwrap_or(path).to_owned()
        };
        match value {
            Value::Missing => "nothing".into(),
            Value::Number(value) => format!("{value:#x}"),
            Value::Own(at) => format!("own+{at:#x}"),
            Value::Library(object, offset) => format!("{}+{offset:#x}", name(object)),
            Value::Anonymous => "anonymous".into(),
            Value::OwnModule => "own module".into(),
            Value::LibraryModule(object) => format!("module of {}", name(object)),
            Value::OwnThreadLocal(at) => format!("own thread-local {at:#x}"),
            Value::LibraryThreadLocal(object, offset) => {
                format!("thread-local of {}+{offset:#x}", name(object))
            }
        }
    }
}
