// `libexample.so`, loaded.
{
    // SAFETY: we trust its constructors.
    unsafe { memdl::Library::from_bytes(&include!("bytes.rs")) }.unwrap()
}
