//! What a debugger is shown of Rust's types: options, results, strings, slices, tuples, boxes,
//! trait objects, closures, generic functions, a panic. The marks are where tests set breakpoints.

pub trait Speaks {
    fn volume(&self) -> i32;
}

#[derive(Clone, Copy)]
pub struct Bird {
    pub size: i32,
}

impl Bird {
    #[inline(never)]
    pub fn grow(&mut self, by: i32) -> i32 {
        self.size += by; // MARK grow
        self.size
    }
}

impl Speaks for Bird {
    #[inline(never)]
    fn volume(&self) -> i32 {
        self.size * 2 // MARK volume
    }
}

#[derive(Clone, Copy)]
pub enum Level {
    Low = 1,
    High = 9,
}

pub union Bits {
    pub whole: u32,
    pub real: f32,
}

pub static COUNTER: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(7);

#[inline(never)]
pub fn larger<T: PartialOrd>(a: T, b: T) -> T {
    if a > b { a } else { b } // MARK larger
}

#[inline(never)]
fn refuses(n: i32) -> i32 {
    if n > 0 {
        panic!("refused {n}"); // MARK panics
    }
    n
}

#[unsafe(no_mangle)]
pub extern "C" fn entry(n: i32) -> i32 {
    let some = Some(n);
    let none: Option<Box<i32>> = None;
    let fine: Result<u8, String> = Ok(200);
    let word = "word";
    let text = String::from("text");
    let numbers = [1, 2, 3];
    let slice = &numbers[1..];
    let mixed = (1u8, 'c', -2.5f64);
    let boxed = Box::new(17);
    let mut bird = Bird { size: 4 };
    let level = Level::High;
    let bits = Bits { real: 1.0 };
    let add = |by: i32| by + n;
    let grown = bird.grow(n); // MARK entry
    let voice: &dyn Speaks = &bird;
    let volume = voice.volume();
    let most = larger(grown, volume) + larger(1.5, 2.5) as i32; // MARK calls
    let caught = std::panic::catch_unwind(|| refuses(n)).is_err();
    // SAFETY: both fields are any bits.
    let whole = unsafe { bits.whole } as i32;
    let count = COUNTER.load(std::sync::atomic::Ordering::Relaxed);
    let sum = add(most) + i32::from(caught) + level as i32 + Level::Low as i32 + count; // MARK sum
    let lengths = word.len() + text.len() + slice.len() + usize::from(fine.unwrap_or(0));
    sum + lengths as i32 + whole % 2 + *boxed + some.unwrap_or(0) + i32::from(mixed.0)
        - none.map_or(0, |n| *n)
}
