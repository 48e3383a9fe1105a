# LLVM: a pass that opt loads.
# Packages: llvm-14 llvm-14-dev g++
set -eu
if [ "$1" = build ]; then
    cat >pass.cpp <<'END'
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Passes/PassPlugin.h"
#include "llvm/Support/CommandLine.h"
using namespace llvm;
static cl::opt<bool> Loud("loud-count", cl::desc("says more"));
struct Count : PassInfoMixin<Count> {
    PreservedAnalyses run(Function &F, FunctionAnalysisManager &) {
        unsigned n = 0;
        for (auto &B : F) n += B.size();
        outs() << F.getName() << " " << n << (Loud ? " instructions\n" : "\n");
        return PreservedAnalyses::all();
    }
};
extern "C" LLVM_ATTRIBUTE_WEAK PassPluginLibraryInfo llvmGetPassPluginInfo() {
    return {LLVM_PLUGIN_API_VERSION, "Count", "1", [](PassBuilder &PB) {
        PB.registerPipelineParsingCallback([](StringRef Name, FunctionPassManager &FPM, ArrayRef<PassBuilder::PipelineElement>) {
            if (Name != "count") return false;
            FPM.addPass(Count());
            return true;
        });
    }};
}
END
    # shellcheck disable=SC2046
    g++ -shared -fPIC -fno-rtti -O1 $(llvm-config-14 --cxxflags) -fexceptions -o count.so pass.cpp
    cat >x.ll <<'END'
define i32 @f(i32 %a) { %b = add i32 %a, 1
 ret i32 %b }
define i32 @g(i32 %a) { %b = call i32 @f(i32 %a)
 %c = mul i32 %b, 3
 ret i32 %c }
END
    exit 0
fi
opt-14 -load-pass-plugin ./count.so -passes=count -disable-output x.ll
opt-14 -load ./count.so -load-pass-plugin ./count.so -loud-count -passes='function(count,instcombine,gvn)' -S x.ll
