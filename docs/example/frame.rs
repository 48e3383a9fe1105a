// The frame of the function `foo` of `libexample.so`.
{
    let library = include!("library.rs");
    let foo = library.symbols().find(|symbol| symbol.name() == "foo").unwrap();
    memdl::symbolize(foo.address()).remove(0)
}
