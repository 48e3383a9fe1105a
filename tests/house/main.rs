//! Rules that memdl keeps: of its text and documents, and of what a load costs. Runs no image itself.

#[path = "../common/mod.rs"]
mod common;

mod documents;
mod instructions;
mod layers;
mod tidy;
