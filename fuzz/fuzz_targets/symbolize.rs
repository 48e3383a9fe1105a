#![no_main]

memdl_fuzz::target!(symbolize, elf);
