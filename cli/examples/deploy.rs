//! A program of one's own, in twenty lines: all commands of `contraflow`, and primitives that only this company has.
//!
//! `cargo run -p contraflow --example deploy -- docs shop` shows them.

use std::process::ExitCode;

use contraflow::{
    Cli,
    rhai::{FuncRegistration, Module},
    runtime::Library,
};

fn main() -> ExitCode {
    let mut shop = Module::new();
    shop.set_doc("What our shop needs to know.");
    FuncRegistration::new("region")
        .with_comments(["/// The region that serves `country`."])
        .with_params_info(["country: &str", "String"])
        .set_into_module(&mut shop, |country: &str| {
            if country == "JP" { "tokyo" } else { "frankfurt" }.to_owned()
        });
    let library = Library::new("shop").module("shop", shop);
    Cli::builder().name("deploy").version("1.4.0").about("Deploys the shop").library(library).run()
}
