//! Calls back into the host: through a function that is inlined, out of one of a module's.

#[allow(improper_ctypes_definitions)]
type Callback = extern "C-unwind" fn(i32);

mod module {
    #[inline(always)]
    fn inlined(back: super::Callback, number: i32) {
        back(number + 1); // calls back
        std::hint::black_box(number);
    }

    #[inline(never)]
    pub fn inner(back: super::Callback, number: i32) {
        inlined(back, number); // calls inlined
        std::hint::black_box(number);
    }
}

#[unsafe(no_mangle)]
pub extern "C-unwind" fn call_back(back: Callback, number: i32) {
    module::inner(back, number); // calls inner
    std::hint::black_box(number);
}
