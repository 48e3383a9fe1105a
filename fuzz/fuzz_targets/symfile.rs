#![no_main]

memdl_fuzz::target!(symfile, elf);
