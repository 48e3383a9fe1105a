//! As callers.c: below a trait object, which a sort of the standard library calls.

use std::hint::black_box;

trait Order {
    fn key(&self, value: u64) -> u64;
}

struct Scrambled;

#[inline(never)]
fn spins_here(turns: u64) -> u64 {
    (0..turns).fold(0, |sum: u64, turn| black_box(sum.wrapping_add(turn ^ (sum << 3))))
}

impl Order for Scrambled {
    fn key(&self, value: u64) -> u64 {
        spins_here(2000 + value)
    }
}

#[inline(never)]
fn sorts(order: &dyn Order) -> u64 {
    let mut values: Vec<u64> = (0..64).rev().collect();
    values.sort_by_key(|&value| order.key(value));
    values[3]
}

#[unsafe(no_mangle)]
pub extern "C" fn call(rounds: i32) -> i32 {
    let order: Box<dyn Order> = black_box(Box::new(Scrambled));
    (0..rounds).map(|_| sorts(&*order) as i32).sum()
}
