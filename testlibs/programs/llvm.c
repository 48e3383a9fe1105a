// A compiler in a library: LLVM's C interface makes functions and runs them, with both of its
// just-in-time compilers. The declarations are those of llvm-c/*.h, LLVM 14 to 18.
#include <pthread.h>
#include <stdint.h>
#include <string.h>

typedef struct LLVMOpaque *Ref;

Ref LLVMContextCreate(void);
void LLVMContextDispose(Ref);
Ref LLVMModuleCreateWithNameInContext(const char *, Ref);
Ref LLVMInt32TypeInContext(Ref);
Ref LLVMFunctionType(Ref, Ref *, unsigned, int);
Ref LLVMAddFunction(Ref, const char *, Ref);
Ref LLVMAppendBasicBlockInContext(Ref, Ref, const char *);
Ref LLVMCreateBuilderInContext(Ref);
void LLVMPositionBuilderAtEnd(Ref, Ref);
Ref LLVMGetParam(Ref, unsigned);
Ref LLVMBuildAdd(Ref, Ref, Ref, const char *);
Ref LLVMBuildRet(Ref, Ref);
void LLVMDisposeBuilder(Ref);
int LLVMVerifyModule(Ref, int, char **);
void LLVMDisposeMessage(char *);
void LLVMLinkInMCJIT(void);
void LLVMInitializeX86TargetInfo(void);
void LLVMInitializeX86Target(void);
void LLVMInitializeX86TargetMC(void);
void LLVMInitializeX86AsmPrinter(void);
int LLVMCreateExecutionEngineForModule(Ref *, Ref, char **);
uint64_t LLVMGetFunctionAddress(Ref, const char *);
void LLVMDisposeExecutionEngine(Ref);
Ref LLVMCreateMemoryBufferWithMemoryRangeCopy(const char *, size_t, const char *);
int LLVMParseIRInContext(Ref, Ref, Ref *, char **);

Ref LLVMOrcCreateNewThreadSafeContext(void);
/* Until LLVM 20, and since 21. */
__attribute__((weak)) Ref LLVMOrcThreadSafeContextGetContext(Ref);
__attribute__((weak)) Ref LLVMOrcCreateNewThreadSafeContextFromLLVMContext(Ref);
void LLVMOrcDisposeThreadSafeContext(Ref);
Ref LLVMOrcCreateNewThreadSafeModule(Ref, Ref);
Ref LLVMOrcCreateLLJIT(Ref *, Ref);
Ref LLVMOrcLLJITGetMainJITDylib(Ref);
char LLVMOrcLLJITGetGlobalPrefix(Ref);
Ref LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess(Ref *, char, void *, void *);
void LLVMOrcJITDylibAddGenerator(Ref, Ref);
Ref LLVMOrcLLJITAddLLVMIRModule(Ref, Ref, Ref);
Ref LLVMOrcLLJITLookup(Ref, uint64_t *, const char *);
Ref LLVMOrcDisposeLLJIT(Ref);

static void initialise(void) {
    LLVMLinkInMCJIT();
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
}

// `int add(int, int)` built piece by piece, compiled by MCJIT.
static int with_mcjit(void) {
    Ref context = LLVMContextCreate();
    Ref module = LLVMModuleCreateWithNameInContext("sums", context);
    Ref int32 = LLVMInt32TypeInContext(context);
    Ref parameters[] = {int32, int32};
    Ref function = LLVMAddFunction(module, "add", LLVMFunctionType(int32, parameters, 2, 0));
    Ref builder = LLVMCreateBuilderInContext(context);
    LLVMPositionBuilderAtEnd(builder, LLVMAppendBasicBlockInContext(context, function, "entry"));
    Ref sum = LLVMBuildAdd(builder, LLVMGetParam(function, 0), LLVMGetParam(function, 1), "sum");
    LLVMBuildRet(builder, sum);
    LLVMDisposeBuilder(builder);
    char *message = 0;
    if (LLVMVerifyModule(module, 2, &message)) return 1;
    LLVMDisposeMessage(message);
    Ref engine;
    if (LLVMCreateExecutionEngineForModule(&engine, module, &message)) return 2;
    int (*add)(int, int) = (int (*)(int, int))LLVMGetFunctionAddress(engine, "add");
    if (!add) return 3;
    if (add(40, 2) != 42 || add(-1, -2) != -3 || add(0x7fffffff, 1) != (int)0x80000000) return 4;
    LLVMDisposeExecutionEngine(engine);
    LLVMContextDispose(context);
    return 0;
}

// A loop that the optimiser would see through, and a call of a function of the process.
static const char SOURCE[] =
    "define i32 @triangle(i32 %n) {\n"
    "entry:\n  br label %loop\n"
    "loop:\n"
    "  %i = phi i32 [ 0, %entry ], [ %next, %loop ]\n"
    "  %sum = phi i32 [ 0, %entry ], [ %total, %loop ]\n"
    "  %total = add i32 %sum, %i\n"
    "  %next = add i32 %i, 1\n"
    "  %more = icmp sle i32 %next, %n\n"
    "  br i1 %more, label %loop, label %done\n"
    "done:\n"
    "  %positive = call i32 @abs(i32 %total)\n"
    "  ret i32 %positive\n}\n"
    "declare i32 @abs(i32)\n";

static void *with_orc(void *failure) {
    int *failed = failure;
    Ref jit;
    if (LLVMOrcCreateLLJIT(&jit, 0)) { *failed = 11; return 0; }
    Ref safe, context;
    if (LLVMOrcThreadSafeContextGetContext) {
        safe = LLVMOrcCreateNewThreadSafeContext();
        context = LLVMOrcThreadSafeContextGetContext(safe);
    } else {
        context = LLVMContextCreate();
        safe = LLVMOrcCreateNewThreadSafeContextFromLLVMContext(context);
    }
    Ref text = LLVMCreateMemoryBufferWithMemoryRangeCopy(SOURCE, strlen(SOURCE), "triangle.ll");
    Ref module, generator;
    char *message = 0;
    if (LLVMParseIRInContext(context, text, &module, &message)) { *failed = 12; return 0; }
    Ref threadsafe = LLVMOrcCreateNewThreadSafeModule(module, safe);
    LLVMOrcDisposeThreadSafeContext(safe);
    Ref dylib = LLVMOrcLLJITGetMainJITDylib(jit);
    char prefix = LLVMOrcLLJITGetGlobalPrefix(jit);
    if (LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess(&generator, prefix, 0, 0)) {
        *failed = 13;
        return 0;
    }
    LLVMOrcJITDylibAddGenerator(dylib, generator);
    if (LLVMOrcLLJITAddLLVMIRModule(jit, dylib, threadsafe)) { *failed = 14; return 0; }
    uint64_t address = 0;
    if (LLVMOrcLLJITLookup(jit, &address, "triangle")) { *failed = 15; return 0; }
    int (*triangle)(int) = (int (*)(int))address;
    if (triangle(100) != 5050 || triangle(0) != 0) { *failed = 16; return 0; }
    if (LLVMOrcDisposeLLJIT(jit)) *failed = 17;
    return 0;
}

int run(void) {
    initialise();
    int failed = with_mcjit();
    if (failed) return failed;
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    int failures[THREADS] = {0};
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], 0, with_orc, &failures[i])) return 20;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], 0);
        if (failures[i]) return failures[i];
    }
    return 42;
}
