// The entry of `libexample.so` in `memdl::images()`.
{
    let _library = include!("library.rs");
    memdl::images().remove(0)
}
