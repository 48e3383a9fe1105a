#![no_main]

memdl_fuzz::target!(parse, elf);
