/* What a resolver of TLS descriptors keeps: all registers but x0, the link register and the flags. (The compiler has
   the address of the resolver in x1.) */
#include "h.h"
#include <string.h>
static __thread int v = 5;
extern __thread int w;
__thread int w = 6;
/* x2 to x28, and all vector registers. */
struct R {
  uint64_t g[27];
  uint64_t pad;
  unsigned char x[32][16];
};
/* Loads the registers from `in`, asks where `w` is, and stores them to `out`. Gives the offset from the thread
   pointer. */
long around(const struct R *in, struct R *out);
__asm__(".pushsection .text.around,\"ax\"\n.hidden around\n.globl around\n.type around, @function\naround:\n"
        " stp x29, x30, [sp, #-192]!\n mov x29, sp\n str x1, [sp, #16]\n"
        " stp x19, x20, [sp, #32]\n stp x21, x22, [sp, #48]\n stp x23, x24, [sp, #64]\n stp x25, x26, [sp, #80]\n"
        " stp x27, x28, [sp, #96]\n stp d8, d9, [sp, #112]\n stp d10, d11, [sp, #128]\n stp d12, d13, [sp, #144]\n"
        " stp d14, d15, [sp, #160]\n"
        " ldr q0, [x0, #224]\n ldr q1, [x0, #240]\n ldr q2, [x0, #256]\n ldr q3, [x0, #272]\n"
        " ldr q4, [x0, #288]\n ldr q5, [x0, #304]\n ldr q6, [x0, #320]\n ldr q7, [x0, #336]\n"
        " ldr q8, [x0, #352]\n ldr q9, [x0, #368]\n ldr q10, [x0, #384]\n ldr q11, [x0, #400]\n"
        " ldr q12, [x0, #416]\n ldr q13, [x0, #432]\n ldr q14, [x0, #448]\n ldr q15, [x0, #464]\n"
        " ldr q16, [x0, #480]\n ldr q17, [x0, #496]\n ldr q18, [x0, #512]\n ldr q19, [x0, #528]\n"
        " ldr q20, [x0, #544]\n ldr q21, [x0, #560]\n ldr q22, [x0, #576]\n ldr q23, [x0, #592]\n"
        " ldr q24, [x0, #608]\n ldr q25, [x0, #624]\n ldr q26, [x0, #640]\n ldr q27, [x0, #656]\n"
        " ldr q28, [x0, #672]\n ldr q29, [x0, #688]\n ldr q30, [x0, #704]\n ldr q31, [x0, #720]\n"
        " ldr x2, [x0, #0]\n ldr x3, [x0, #8]\n ldr x4, [x0, #16]\n ldr x5, [x0, #24]\n"
        " ldr x6, [x0, #32]\n ldr x7, [x0, #40]\n ldr x8, [x0, #48]\n ldr x9, [x0, #56]\n"
        " ldr x10, [x0, #64]\n ldr x11, [x0, #72]\n ldr x12, [x0, #80]\n ldr x13, [x0, #88]\n"
        " ldr x14, [x0, #96]\n ldr x15, [x0, #104]\n ldr x16, [x0, #112]\n ldr x17, [x0, #120]\n"
        " ldr x18, [x0, #128]\n ldr x19, [x0, #136]\n ldr x20, [x0, #144]\n ldr x21, [x0, #152]\n"
        " ldr x22, [x0, #160]\n ldr x23, [x0, #168]\n ldr x24, [x0, #176]\n ldr x25, [x0, #184]\n"
        " ldr x26, [x0, #192]\n ldr x27, [x0, #200]\n ldr x28, [x0, #208]\n"
        " adrp x0, :tlsdesc:w\n ldr x1, [x0, :tlsdesc_lo12:w]\n add x0, x0, :tlsdesc_lo12:w\n"
        " .tlsdesccall w\n blr x1\n ldr x1, [x29, #16]\n"
        " str x2, [x1, #0]\n str x3, [x1, #8]\n str x4, [x1, #16]\n str x5, [x1, #24]\n"
        " str x6, [x1, #32]\n str x7, [x1, #40]\n str x8, [x1, #48]\n str x9, [x1, #56]\n"
        " str x10, [x1, #64]\n str x11, [x1, #72]\n str x12, [x1, #80]\n str x13, [x1, #88]\n"
        " str x14, [x1, #96]\n str x15, [x1, #104]\n str x16, [x1, #112]\n str x17, [x1, #120]\n"
        " str x18, [x1, #128]\n str x19, [x1, #136]\n str x20, [x1, #144]\n str x21, [x1, #152]\n"
        " str x22, [x1, #160]\n str x23, [x1, #168]\n str x24, [x1, #176]\n str x25, [x1, #184]\n"
        " str x26, [x1, #192]\n str x27, [x1, #200]\n str x28, [x1, #208]\n str q0, [x1, #224]\n"
        " str q1, [x1, #240]\n str q2, [x1, #256]\n str q3, [x1, #272]\n str q4, [x1, #288]\n"
        " str q5, [x1, #304]\n str q6, [x1, #320]\n str q7, [x1, #336]\n str q8, [x1, #352]\n"
        " str q9, [x1, #368]\n str q10, [x1, #384]\n str q11, [x1, #400]\n str q12, [x1, #416]\n"
        " str q13, [x1, #432]\n str q14, [x1, #448]\n str q15, [x1, #464]\n str q16, [x1, #480]\n"
        " str q17, [x1, #496]\n str q18, [x1, #512]\n str q19, [x1, #528]\n str q20, [x1, #544]\n"
        " str q21, [x1, #560]\n str q22, [x1, #576]\n str q23, [x1, #592]\n str q24, [x1, #608]\n"
        " str q25, [x1, #624]\n str q26, [x1, #640]\n str q27, [x1, #656]\n str q28, [x1, #672]\n"
        " str q29, [x1, #688]\n str q30, [x1, #704]\n str q31, [x1, #720]\n"
        " ldp x19, x20, [sp, #32]\n ldp x21, x22, [sp, #48]\n ldp x23, x24, [sp, #64]\n ldp x25, x26, [sp, #80]\n"
        " ldp x27, x28, [sp, #96]\n ldp d8, d9, [sp, #112]\n ldp d10, d11, [sp, #128]\n ldp d12, d13, [sp, #144]\n"
        " ldp d14, d15, [sp, #160]\n ldp x29, x30, [sp], #192\n ret\n"
        ".size around, . - around\n.popsection");
int test(void) {
  struct R in, out;
  memset(&out, 0, sizeof out);
  for (int i = 0; i < 27; i++)
    in.g[i] = 0x0101010101010101ul * (i + 1);
  for (int i = 0; i < 32; i++)
    memset(in.x[i], 0x30 + i, 16);
  long offset = around(&in, &out);
  CHECK(*(int *)((char *)__builtin_thread_pointer() + offset) == 6);
  for (int i = 0; i < 27; i++)
    if (in.g[i] != out.g[i])
      return 100 + i;
  for (int i = 0; i < 32; i++)
    if (memcmp(in.x[i], out.x[i], 16))
      return 200 + i;
  return v - 5;
}
