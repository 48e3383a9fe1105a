// A library with a runtime that registers code with debuggers, as LLVM's JIT does: it has a global pair of its
// own. The code is a linked program whose segments lie where nothing else is.
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

struct entry {
    struct entry *next, *previous;
    const char *symfile;
    uint64_t size;
};
struct {
    uint32_t version, action;
    struct entry *relevant, *first;
} __jit_debug_descriptor = {1, 0, 0, 0};
__attribute__((noinline)) void __jit_debug_register_code(void) { __asm__ volatile("" ::: "memory"); }

int run_jitted(const char *path, int (*called)(int));

// Maps the program, registers it, and calls its entry point with a function to call.
int run_jitted(const char *path, int (*called)(int)) {
    static char file[1 << 16];
    static struct entry entry;
    FILE *input = fopen(path, "rb");
    entry.size = input ? fread(file, 1, sizeof file, input) : 0;
    Elf64_Ehdr *header = (Elf64_Ehdr *)file;
    Elf64_Phdr *segment = (Elf64_Phdr *)(file + header->e_phoff);
    for (int i = 0; i < header->e_phnum; i++, segment++) {
        if (segment->p_type != PT_LOAD) continue;
        uint64_t start = segment->p_vaddr & -4096, end = segment->p_vaddr + segment->p_memsz;
        int prot = PROT_READ | PROT_WRITE | PROT_EXEC, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
        if (mmap((void *)start, end - start, prot, flags, -1, 0) != (void *)start) return -1;
        memcpy((void *)segment->p_vaddr, file + segment->p_offset, segment->p_filesz);
    }
    entry.symfile = file;
    __jit_debug_descriptor.first = __jit_debug_descriptor.relevant = &entry;
    __jit_debug_descriptor.action = 1;
    __jit_debug_register_code();
    return ((int (*)(int (*)(int)))header->e_entry)(called);
}
