# Java: a JNI library, in a JVM that `ld.so` loaded.
# Packages: openjdk-17-jdk-headless gcc libc6-dev
set -eu
if [ "$1" = build ]; then
    cat >Hello.java <<'END'
public class Hello {
    static { System.load(System.getProperty("user.dir") + "/libhello.so"); }
    static native int add(int a, int b);
    static native String greet(String name);
    static native void fails();
    static native int calls(Runnable task);
    static int count;
    public static void main(String[] arguments) throws Exception {
        System.out.println(add(40, 2) + " " + greet("memory"));
        try { fails(); } catch (IllegalStateException error) { System.out.println(error.getMessage()); }
        System.out.println(calls(() -> count++) + " " + count);
        Thread[] threads = new Thread[4];
        for (int i = 0; i < 4; i++) (threads[i] = new Thread(() -> { for (int n = 0; n < 20000; n++) add(n, 1); })).start();
        for (Thread thread : threads) thread.join();
        try { System.load("/none/libnone.so"); } catch (UnsatisfiedLinkError error) { System.out.println("not there"); }
        try { none(); } catch (UnsatisfiedLinkError error) { System.out.println("no such function"); }
    }
    static native void none();
}
END
    cat >hello.c <<'END'
#include <jni.h>
#include <stdio.h>
JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *vm, void *reserved) { return JNI_VERSION_10; }
JNIEXPORT jint JNICALL Java_Hello_add(JNIEnv *env, jclass class, jint a, jint b) { return a + b; }
JNIEXPORT jstring JNICALL Java_Hello_greet(JNIEnv *env, jclass class, jstring name) {
    char text[100];
    const char *chars = (*env)->GetStringUTFChars(env, name, 0);
    snprintf(text, sizeof text, "hello, %s", chars);
    (*env)->ReleaseStringUTFChars(env, name, chars);
    return (*env)->NewStringUTF(env, text);
}
JNIEXPORT void JNICALL Java_Hello_fails(JNIEnv *env, jclass class) {
    (*env)->ThrowNew(env, (*env)->FindClass(env, "java/lang/IllegalStateException"), "from C");
}
JNIEXPORT jint JNICALL Java_Hello_calls(JNIEnv *env, jclass class, jobject task) {
    jmethodID run = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, task), "run", "()V");
    for (int i = 0; i < 10; i++) (*env)->CallVoidMethod(env, task, run);
    return 10;
}
END
    javac Hello.java
    home=$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")
    gcc -shared -fPIC -I"$home/include" -I"$home/include/linux" -o libhello.so hello.c
    exit 0
fi
export MEMDL_SHIM='libhello.so'
java -Xmx128m Hello
