//! The interpreter of one run.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use rhai::{AST, Engine, EvalAltResult, Module, ModuleResolver, OptimizationLevel, Position, Scope, Shared};

use super::{
    Argument, EffectClass, Places, ScriptLimits,
    convert::Unknown,
    error,
    standard::{self, Arities},
    syntax,
    values::{UNKNOWN, values},
};
use crate::{
    error::RunError,
    schema::{self, OptionSchema},
    secret::SecretText,
};

/// Script modules by name.
pub type Modules = Vec<(&'static str, Arc<Module>)>;

/// Everything that scripts can call: built once, shared by all runs.
pub struct Functions {
    modules: Modules,
    globals: Vec<Shared<Module>>,
    /// Names of the control words.
    words: HashSet<String>,
    natives: OnceLock<Natives>,
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.modules.iter().map(|(name, _)| name)).finish()
    }
}

/// Names and numbers of arguments of all native functions, for checks before a script runs.
#[derive(Default)]
pub(crate) struct Natives {
    /// Numbers of arguments by module (`""` for none) and name. What the language itself brings is looked up in [`standard`].
    own: HashMap<String, Arities>,
    modules: HashSet<String>,
    /// What functions do outside, by module, name and number of arguments, and whether the last argument is a map of options.
    classes: HashMap<(String, String, usize), (EffectClass, bool)>,
    /// What the types of arguments are, by module, name and number of arguments: the place of the argument, and its name.
    arguments: HashMap<(String, String, usize), Vec<(usize, String, Argument)>>,
    /// With how many arguments functions call the closure that is their last argument, by module, name and number of arguments.
    closures: HashMap<(String, String, usize), usize>,
    /// The control words of the runtime.
    words: HashSet<String>,
}

/// With how many arguments a function calls the closure that it is given last.
fn calls_with(name: &str) -> usize {
    // An invariant looks at the states of all targets.
    usize::from(name == "invariant")
}

impl Natives {
    /// With how many arguments a function calls the closure that is its last argument, if it takes one.
    pub(crate) fn closure(&self, module: &str, name: &str, arguments: usize) -> Option<usize> {
        self.closures.get(&(module.to_owned(), name.to_owned(), arguments)).copied()
    }

    /// What a function says that it does outside, and whether its last argument is a map of options.
    pub(crate) fn class(&self, module: &str, name: &str, arguments: usize) -> Option<(EffectClass, bool)> {
        self.classes.get(&(module.to_owned(), name.to_owned(), arguments)).copied()
    }

    /// The arguments of a function whose types are declared, by their places, with their names.
    pub(crate) fn arguments(
        &self,
        module: &str,
        name: &str,
        arguments: usize,
    ) -> &[(usize, String, Argument)] {
        self.arguments.get(&(module.to_owned(), name.to_owned(), arguments)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn is_word(&self, name: &str) -> bool {
        self.words.contains(name)
    }

    pub(crate) fn has(&self, module: &str, name: &str, arguments: usize) -> bool {
        let own = self.own.get(module).and_then(|names| names.get(name));
        own.is_some_and(|arities| arities.contains(&arguments))
            || (module.is_empty() && standard::has(name, arguments))
    }

    /// Numbers of arguments that functions of that name take, in order.
    pub(crate) fn arities(&self, module: &str, name: &str) -> Vec<usize> {
        let own = self.own.get(module).and_then(|names| names.get(name));
        let standard = module.is_empty().then(|| standard::all().get(name)).flatten();
        let arities: BTreeSet<usize> = own.into_iter().chain(standard).flatten().copied().collect();
        arities.into_iter().collect()
    }

    pub(crate) fn names(&self, module: &str) -> BTreeSet<&str> {
        let standard = module.is_empty().then(standard::all);
        let all = self.own.get(module).into_iter().chain(standard);
        all.flat_map(|names| names.keys().map(String::as_str)).collect()
    }

    pub(crate) fn is_module(&self, name: &str) -> bool {
        self.modules.contains(name)
    }

    pub(crate) fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(String::as_str)
    }
}

/// The names of the control words.
fn names_of(words: &Shared<Module>) -> HashSet<String> {
    let mut engine = Engine::new_raw();
    engine.register_global_module(Shared::clone(words));
    engine.collect_fn_metadata(None, |f| Some(f.metadata.name.to_string()), false).into_iter().collect()
}

/// A function that scripts can call, as its author describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionDoc {
    /// Its module; empty for a function that needs no module name.
    pub module: String,
    /// Its name.
    pub name: String,
    /// How many arguments it takes.
    pub arity: usize,
    /// Its parameters as `name: type`, in Rust's terms. Shorter than `arity` where they are not known.
    pub params: Vec<String>,
    /// The type of its result, in Rust's terms. May be empty.
    pub returns: String,
    /// What it does outside. `None`: nothing, or it does not say.
    pub class: Option<EffectClass>,
    /// What its arguments take, as far as it is declared.
    pub arguments: Vec<ArgumentDoc>,
    /// Its description in Markdown. Empty: it has none.
    pub doc: String,
}

/// What an argument of a function takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgumentDoc {
    /// Its name.
    pub name: String,
    /// What it takes, in the words of scripts.
    pub kind: String,
    /// The options of a map.
    pub options: Vec<OptionSchema>,
}

/// The place and name of each parameter.
fn names(params: &[String]) -> impl Iterator<Item = (usize, &str)> {
    params.iter().map(|param| param.split(':').next().unwrap_or_default().trim()).enumerate()
}

impl FunctionDoc {
    fn of(module: &str, function: &rhai::FuncMetadata) -> Self {
        // Rhai keeps comments as they are written, each line or block with its marks.
        let doc: Vec<&str> = function
            .comments
            .iter()
            .flat_map(|comment| comment.lines())
            .map(|line| line.trim_start().trim_start_matches("///"))
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect();
        Self {
            module: module.to_owned(),
            name: function.name.to_string(),
            arity: function.num_params,
            params: function.params_info.iter().map(ToString::to_string).collect(),
            returns: function.return_type.to_string(),
            class: EffectClass::of(&function.return_type),
            arguments: Vec::new(),
            doc: doc.join("\n").trim().to_owned(),
        }
    }
}

impl Functions {
    /// These modules, with the control `words`, and `globals` whose functions need no module name.
    pub(crate) fn new(
        words: Module,
        mut modules: Modules,
        globals: impl IntoIterator<Item = Module>,
    ) -> Self {
        for (name, module) in &mut modules {
            // Rhai copies a module without a name or an index each time that an engine takes it.
            Arc::make_mut(module).set_id(*name).build_index();
        }
        let control = Shared::new(words);
        let words = names_of(&control);
        let mut all = vec![Shared::new(values()), control];
        all.extend(globals.into_iter().map(Shared::new));
        Self { modules, globals: all, words, natives: OnceLock::new() }
    }

    /// The modules by name.
    pub fn modules(&self) -> &Modules {
        &self.modules
    }

    /// What scripts can call: every function of the modules, the control words, and of the other functions without a module
    /// those that are described. The standard library of the language is left out.
    pub fn docs(&self) -> Vec<FunctionDoc> {
        let mut engine = Engine::new_raw();
        self.register_own(&mut engine);
        let all =
            engine.collect_fn_metadata(None, |f| Some(FunctionDoc::of(&f.namespace, f.metadata)), false);
        let words = self.words.clone();
        let mut functions: Vec<FunctionDoc> = all
            .into_iter()
            .filter(|f| !f.module.is_empty() || !f.doc.is_empty() || words.contains(&f.name))
            .collect();
        functions.sort_by(|a, b| (&a.module, &a.name, a.arity).cmp(&(&b.module, &b.name, b.arity)));
        for function in &mut functions {
            let module = self.declaring(&function.module);
            let declared = names(&function.params).filter_map(|(_, name)| {
                let schema = Argument::of(module.clone(), &function.name, name)?.schema();
                Some(ArgumentDoc {
                    name: name.to_owned(),
                    kind: schema::kind(&schema),
                    options: OptionSchema::list(&schema),
                })
            });
            function.arguments = declared.collect();
        }
        functions
    }

    /// What a module is for, as it says itself ([`Module::set_doc`]). Empty: there is none of that name, or it does not say.
    pub fn module_doc(&self, name: &str) -> &str {
        self.modules.iter().find(|(known, _)| *known == name).map_or("", |(_, module)| module.doc())
    }

    /// The modules that may declare what functions of `module` take: itself, or all without a name.
    fn declaring<'a>(&'a self, module: &'a str) -> impl Iterator<Item = &'a Module> + Clone {
        let named = self.modules.iter().filter(move |(name, _)| *name == module).map(|(_, module)| &**module);
        named.chain(self.globals.iter().filter(move |_| module.is_empty()).map(|module| &**module))
    }

    /// Makes them known to an engine, without what the language itself brings: only a script that runs needs that.
    fn register_own(&self, engine: &mut Engine) {
        for module in &self.globals {
            engine.register_global_module(Shared::clone(module));
        }
        for (name, module) in &self.modules {
            engine.register_static_module(*name, Shared::clone(module));
        }
        engine.register_type_with_name::<Unknown>(UNKNOWN);
        engine.register_type_with_name::<SecretText>("secret");
        engine.register_type_with_name::<RunError>("error");
        engine.register_type_with_name::<std::ops::Range<i64>>("range");
        engine.register_type_with_name::<std::ops::RangeInclusive<i64>>("range");
    }

    /// Lets scripts call them.
    fn register(&self, engine: &mut Engine) {
        engine.register_global_module(standard::module());
        self.register_own(engine);
    }

    /// An engine that checks and compiles scripts and runs nothing.
    pub(crate) fn checker(&self) -> Engine {
        let mut engine = Engine::new_raw();
        syntax::set_syntax(&mut engine);
        engine.set_optimization_level(OptimizationLevel::None);
        set_limits(&mut engine, &ScriptLimits::default());
        engine.set_strict_variables(true);
        self.register_own(&mut engine);
        engine
    }

    pub(crate) fn natives(&self) -> &Natives {
        self.natives.get_or_init(|| {
            let mut natives = Natives::default();
            let all = self.checker().collect_fn_metadata(
                None,
                |f| Some(FunctionDoc::of(&f.namespace, f.metadata)),
                false,
            );
            natives.words = self.words.clone();
            natives.modules.extend(self.modules.iter().map(|(name, _)| (*name).to_owned()));
            for function in all {
                let own = natives.own.entry(function.module.clone()).or_default();
                standard::add(own, &function.name, function.arity);
                for (place, name) in names(&function.params) {
                    let module = self.declaring(&function.module);
                    let Some(argument) = Argument::of(module, &function.name, name) else { continue };
                    let key = (function.module.clone(), function.name.clone(), function.arity);
                    let known = natives.arguments.entry(key).or_default();
                    if !known.iter().any(|(_, known, _)| known == name) {
                        known.push((place, name.to_owned(), argument));
                    }
                }
                if function.params.last().is_some_and(|param| param.ends_with("FnPtr"))
                    && (!function.module.is_empty()
                        || natives.words.contains(&function.name)
                        || !function.doc.is_empty())
                {
                    let key = (function.module.clone(), function.name.clone(), function.arity);
                    natives.closures.insert(key, calls_with(&function.name));
                }
                if let Some(class) = function.class {
                    let options = function.params.last().is_some_and(|param| param.starts_with("options"));
                    natives
                        .classes
                        .insert((function.module, function.name, function.arity), (class, options));
                }
            }
            natives
        })
    }
}

/// A bundle that has been checked and compiled.
pub(crate) struct Loaded {
    pub(crate) main: AST,
    pub(crate) imports: Arc<BTreeMap<String, AST>>,
    pub(crate) places: Arc<Places>,
}

fn set_limits(engine: &mut Engine, limits: &ScriptLimits) {
    engine.set_max_call_levels(limits.max_call_levels);
    engine.set_max_string_size(limits.max_string);
    engine.set_max_array_size(limits.max_array);
    engine.set_max_map_size(limits.max_map);
    engine.set_max_modules(256);
    engine.set_max_variables(4096);
    engine.set_max_functions(4096);
}

/// The interpreter of one run. The session sets its hooks.
pub(crate) fn build(
    functions: &Functions,
    limits: &ScriptLimits,
    imports: Arc<BTreeMap<String, AST>>,
) -> Engine {
    let mut engine = Engine::new_raw();
    syntax::set_syntax(&mut engine);
    set_limits(&mut engine, limits);
    engine.set_fail_on_invalid_map_property(true);
    functions.register(&mut engine);
    engine.set_module_resolver(Resolver { imports, done: Mutex::default() });
    engine
}

/// Answers imports from the bundle and from nowhere else.
struct Resolver {
    imports: Arc<BTreeMap<String, AST>>,
    done: Mutex<HashMap<String, Shared<Module>>>,
}

impl ModuleResolver for Resolver {
    fn resolve(
        &self,
        engine: &Engine,
        _source: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let name = format!("{path}.rhai");
        if let Some(module) = self.done.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(Shared::clone(module));
        }
        let Some(ast) = self.imports.get(&name) else {
            return Err(Box::new(EvalAltResult::ErrorModuleNotFound(path.to_owned(), position)));
        };
        let mut module = Module::eval_ast_as_new(Scope::new(), ast, engine)?;
        module.set_id(name.clone());
        let module = Shared::new(module);
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Shared::clone(&module));
        Ok(module)
    }
}

/// Compiles one script of a bundle against the library.
///
/// Nothing is folded or left out yet: what the text says is all there.
pub(crate) fn compile(checker: &Engine, scope: &Scope<'_>, text: &str, file: &str) -> Result<AST, RunError> {
    let mut ast = checker.compile_with_scope(scope, text).map_err(|e| error::syntax(&e, file))?;
    ast.set_source(file);
    Ok(ast)
}

/// A compiled script in the form in which it runs.
pub(crate) fn optimized(checker: &Engine, scope: &Scope<'_>, ast: AST) -> AST {
    let file = ast.source().map(ToOwned::to_owned);
    let mut ast = checker.optimize_ast(scope, ast, OptimizationLevel::Simple);
    if let Some(file) = file {
        ast.set_source(file);
    }
    ast
}
