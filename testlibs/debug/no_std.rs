//! A little Rust without its standard library, so that it is small.

#![no_std]
#![allow(missing_docs)]

use core::panic::PanicInfo;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

pub trait Shape {
    fn area(&self) -> u64;
}

pub struct Square(pub u64);

pub enum Either<A, B> {
    Left(A),
    Right { inner: B },
}

impl Shape for Square {
    fn area(&self) -> u64 {
        self.0.wrapping_mul(self.0)
    }
}

static SHAPES: [&(dyn Shape + Sync); 2] = [&Square(2), &Square(3)];

fn total<T: Iterator<Item = u64>>(items: T) -> u64 {
    items.fold(0, u64::wrapping_add)
}

#[unsafe(no_mangle)]
pub extern "C" fn areas(count: usize) -> u64 {
    let either: Either<u8, u64> =
        if count > 1 { Either::Right { inner: 1 } } else { Either::Left(2) };
    let more = match either {
        Either::Left(left) => u64::from(left),
        Either::Right { inner } => inner,
    };
    total(SHAPES.iter().take(count).map(|shape| shape.area())).wrapping_add(more)
}

/// What `core`, which was compiled to unwind, refers to.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {}
