//! The functions of the language's own standard library.
//!
//! To make and to list them all takes time and memory that the check of a small runbook can do without. So the list is made only for a
//! script that asks for something less common, and the module only for one that runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use rhai::{
    Engine, Module, Shared,
    packages::{Package as _, StandardPackage},
};

/// What runbooks use: names with spaces in between, by number of arguments.
const COMMON: [(usize, &str); 4] = [
    (0, "blob"),
    (
        1,
        "abs ceiling chars clear floor int is_empty keys len parse_float parse_int pop reverse round shift sort split \
         to_array to_chars to_debug to_float to_json to_lower to_string to_upper trim values",
    ),
    (
        2,
        "all append chars contains dedup ends_with filter find for_each get index_of map max min mixin parse_int push range \
         reduce remove retain some sort split starts_with sub_string truncate",
    ),
    (3, "insert pad range reduce replace set splice split sub_string"),
];

/// Numbers of arguments by name, in order.
pub(super) type Arities = BTreeMap<String, Vec<usize>>;

/// Adds what a function takes.
pub(super) fn add(arities: &mut Arities, name: &str, arguments: usize) {
    // Thousands of functions share some hundred names: a name is copied once.
    match arities.get_mut(name) {
        Some(known) => {
            if let Err(place) = known.binary_search(&arguments) {
                known.insert(place, arguments);
            }
        }
        None => {
            arities.insert(name.to_owned(), vec![arguments]);
        }
    }
}

/// The module that has them.
pub(super) fn module() -> Shared<Module> {
    static MODULE: OnceLock<Shared<Module>> = OnceLock::new();
    Arc::clone(MODULE.get_or_init(|| StandardPackage::new().as_shared_module()))
}

/// All of them.
pub(super) fn all() -> &'static Arities {
    static ALL: OnceLock<Arities> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut engine = Engine::new_raw();
        engine.register_global_module(module());
        let functions = engine.collect_fn_metadata(
            None,
            |f| Some((f.metadata.name.clone(), f.metadata.num_params)),
            true,
        );
        let mut all = Arities::new();
        functions.iter().for_each(|(name, arguments)| add(&mut all, name, *arguments));
        all
    })
}

/// Whether there is a function of that name that takes so many arguments.
pub(super) fn has(name: &str, arguments: usize) -> bool {
    let common =
        COMMON.iter().any(|(n, names)| *n == arguments && names.split(' ').any(|common| common == name));
    common || all().get(name).is_some_and(|arities| arities.contains(&arguments))
}

#[cfg(test)]
mod tests {
    use super::{COMMON, all};

    #[test]
    fn what_is_common_is_there() {
        for (arguments, names) in COMMON {
            for name in names.split(' ') {
                let found = all().get(name).is_some_and(|arities| arities.contains(&arguments));
                assert!(found, "{name} with {arguments}");
            }
        }
    }
}
