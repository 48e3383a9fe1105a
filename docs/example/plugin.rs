// The bytes of `libplugin.so`, which needs `libexample.so`.
{
    let compile = include!("compile.rs");
    compile("example", "");
    compile("plugin", "-lexample")
}
