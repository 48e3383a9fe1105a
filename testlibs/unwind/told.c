// Stands for an unwinder that cannot be led to images, by what it exports. It says what it is told.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Of an unwinder that others use. Nothing is thrown here.
int _Unwind_RaiseException(void *exception) { (void)exception; return 9; }
void _Unwind_SetGR(void *context, int index, unsigned long value) { (void)context, (void)index, (void)value; }

#ifdef LLVM
// Its `__register_frame` takes a single entry.
void __unw_add_dynamic_fde(unsigned long fde) { (void)fde; }
#define ADD_SECTION __unw_add_dynamic_eh_frame_section
#define REMOVE_SECTION __unw_remove_dynamic_eh_frame_section
void __register_frame(const void *entry) { (void)entry; puts("wrong"), fflush(stdout); }
void __deregister_frame(const void *entry) { (void)entry; puts("wrong"), fflush(stdout); }
#else
#define ADD_SECTION __register_frame
#define REMOVE_SECTION __deregister_frame
#endif

#ifdef SECTIONS
static const void *known;
// A section begins with a CIE, whose second word is 0.
void ADD_SECTION(const void *section) {
    unsigned words[2];
    memcpy(words, section, sizeof words);
    puts(words[0] >= 12 && words[1] == 0 ? "a section is added" : "not a section");
    fflush(stdout);
    known = section;
}
void REMOVE_SECTION(const void *section) {
    puts(section == known ? "it is removed" : "another is removed");
    fflush(stdout);
}
#endif
