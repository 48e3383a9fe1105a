// A program with memdl and LLVM's just-in-time compiler: what LLVM compiles calls an image. How to run it is in
// docs/debuggers.md.
#include <llvm-c/Core.h>
#include <llvm-c/ExecutionEngine.h>
#include <llvm-c/IRReader.h>
#include <llvm-c/Target.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memdl.h"

static const char SOURCE[] =
    "define i32 @jitted(i32 %n) !dbg !2 {\n"
    "  %result = call i32 @called(i32 %n), !dbg !4\n"
    "  %more = add i32 %result, 1, !dbg !5\n"
    "  ret i32 %more, !dbg !5\n}\n"
    "declare i32 @called(i32)\n"
    "!llvm.dbg.cu = !{!0}\n"
    "!llvm.module.flags = !{!6}\n"
    "!0 = distinct !DICompileUnit(language: DW_LANG_C99, file: !1, emissionKind: FullDebug)\n"
    "!1 = !DIFile(filename: \"jitted.ll\", directory: \"/tmp\")\n"
    "!2 = distinct !DISubprogram(name: \"jitted\", file: !1, line: 7, type: !3, unit: !0,\n"
    "                            spFlags: DISPFlagDefinition)\n"
    "!3 = !DISubroutineType(types: !{null})\n"
    "!4 = !DILocation(line: 8, scope: !2)\n"
    "!5 = !DILocation(line: 9, scope: !2)\n"
    "!6 = !{i32 2, !\"Debug Info Version\", i32 3}\n";

static void fail(const char *message) {
    fprintf(stderr, "%s\n", message);
    exit(EXIT_FAILURE);
}

int main(int count, char **arguments) {
    static char bytes[1 << 20];
    FILE *file = fopen(count > 1 ? arguments[1] : "", "rb");
    size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    memdl_library *library = memdl_open(bytes, len, NULL);
    if (!library) fail(memdl_error());

    LLVMLinkInMCJIT();
    LLVMInitializeNativeTarget();
    LLVMInitializeNativeAsmPrinter();
    char *message;
    LLVMModuleRef module;
    LLVMMemoryBufferRef text = LLVMCreateMemoryBufferWithMemoryRangeCopy(SOURCE, strlen(SOURCE), "jitted.ll");
    if (LLVMParseIRInContext(LLVMGetGlobalContext(), text, &module, &message)) fail(message);
    LLVMExecutionEngineRef engine;
    if (LLVMCreateExecutionEngineForModule(&engine, module, &message)) fail(message);
    LLVMAddGlobalMapping(engine, LLVMGetNamedFunction(module, "called"), memdl_sym(library, "entry"));
    int (*jitted)(int) = (int (*)(int))LLVMGetFunctionAddress(engine, "jitted");
    printf("jitted(5) = %d\n", jitted(5));
    memdl_close(library);
    printf("closed\n");
    LLVMDisposeExecutionEngine(engine);
    return EXIT_SUCCESS;
}
