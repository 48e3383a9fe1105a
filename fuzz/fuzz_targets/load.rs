#![no_main]

memdl_fuzz::target!(load, elf);
