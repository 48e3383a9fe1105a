// Compiles the libraries of the examples in the documentation of the Rust API. The file is one expression, since
// `include!` in a function takes nothing else: a function from a library's name, and an option of the linker, to bytes.
{
    fn compile(name: &str, option: &str) -> Vec<u8> {
        // All examples share the libraries. rustdoc removes this folder when the last one has run.
        let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let library = folder.join(format!("lib{name}{option}.so"));
        if let Ok(bytes) = std::fs::read(&library) {
            return bytes;
        }
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example");
        let script = format!("{source}/{name}.map");
        // Other examples may be at it, too: none finds half a library.
        let unfinished = folder.join(format!("{name}-{}.so", std::process::id()));
        let mut cc = std::process::Command::new("cc");
        cc.args(["-g", "-shared", "-fPIC", "-Wl,--build-id=0x0123456789abcdef", "-o"]).arg(&unfinished);
        cc.arg(format!("{source}/{name}.c")).arg(format!("-Wl,-soname,lib{name}.so"));
        cc.arg("-Wl,--enable-new-dtags,-rpath,$ORIGIN/deps");
        cc.arg("-L").arg(&folder).args(Some(option).filter(|it| !it.is_empty()));
        if std::path::Path::new(&script).exists() {
            cc.arg(format!("-Wl,--version-script={script}"));
        }
        assert!(cc.status().unwrap().success(), "{cc:?}");
        std::fs::rename(&unfinished, &library).unwrap();
        std::fs::read(&library).unwrap()
    }
    compile
}
