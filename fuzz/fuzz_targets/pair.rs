#![no_main]

memdl_fuzz::target!(pair, pair);
