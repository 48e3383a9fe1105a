#![no_main]

memdl_fuzz::target!(dwarf, elf);
