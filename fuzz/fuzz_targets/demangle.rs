#![no_main]

memdl_fuzz::target!(demangle);
