//! The interpreter of one run.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use rhai::{
    AST, Dynamic, Engine, EvalAltResult, FuncRegistration, ImmutableString, Module, ModuleResolver,
    OptimizationLevel, Position, Scope, Shared,
};

use super::{
    Argument, EffectClass, Places, ScriptContext as _, ScriptLimits, Session, answers,
    convert::{self, Unknown},
    error,
    standard::{self, Arities},
    syntax,
};
use crate::{
    error::{RunError, codes},
    schema::{self, OptionSchema},
    secret::SecretText,
};

/// What `type_of` would call a value that a plan does not know.
const UNKNOWN: &str = "unknown";

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
    /// The control words of the runtime.
    words: HashSet<String>,
}

impl Natives {
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
        self.register(&mut engine);
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

    fn register(&self, engine: &mut Engine) {
        engine.register_global_module(standard::module());
        for module in &self.globals {
            engine.register_global_module(Shared::clone(module));
        }
        for (name, module) in &self.modules {
            engine.register_static_module(*name, Shared::clone(module));
        }
        engine.register_type_with_name::<Unknown>(UNKNOWN);
        engine.register_type_with_name::<SecretText>("secret");
        engine.register_type_with_name::<RunError>("error");
    }

    /// An engine that checks and compiles scripts and cannot run effects.
    pub(crate) fn checker(&self) -> Engine {
        let mut engine = Engine::new_raw();
        syntax::set_syntax(&mut engine);
        engine.set_optimization_level(OptimizationLevel::None);
        set_limits(&mut engine, &ScriptLimits::default());
        engine.set_strict_variables(true);
        self.register(&mut engine);
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

type Native<T = Dynamic> = Result<T, Box<EvalAltResult>>;
type Cx<'a> = rhai::NativeCallContext<'a>;

/// Registers `name` for every pair of an [`Unknown`] and another type, in both orders.
macro_rules! pairs_with_unknown {
    ($module:ident, $($type:ty),+) => {
        for name in ["+", "-", "*", "/", "%", "+=", "==", "!=", "<", "<=", ">", ">=", "contains"] {
            FuncRegistration::new(name)
                .set_into_module(&mut $module, |cx: Cx<'_>, left: &mut Unknown, _: Unknown| -> Native { Err(unknown(&cx, left)) });
            $(
                FuncRegistration::new(name)
                    .set_into_module(&mut $module, |cx: Cx<'_>, left: &mut Unknown, _: $type| -> Native { Err(unknown(&cx, left)) });
                FuncRegistration::new(name)
                    .set_into_module(&mut $module, |cx: Cx<'_>, _: &mut $type, right: Unknown| -> Native { Err(unknown(&cx, &right)) });
            )+
        }
    };
}

fn unknown(cx: &Cx<'_>, value: &Unknown) -> Box<EvalAltResult> {
    cx.throw(convert::unknown_in_plan(&value.origin))
}

fn thrown_here(error: RunError) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(error), Position::NONE))
}

/// Value types of the runtime, and safe forms of what the standard library has in unsafe ones.
fn values() -> Module {
    let mut m = Module::new();

    // What a plan does not know can be passed on and looked into; it cannot be used.
    pairs_with_unknown!(
        m,
        i64,
        f64,
        bool,
        char,
        ImmutableString,
        rhai::Array,
        rhai::Map,
        rhai::Blob,
        rhai::FnPtr,
        std::ops::Range<i64>,
        std::ops::RangeInclusive<i64>,
        SecretText,
        RunError,
        ()
    );
    for name in ["to_string", "to_debug", "print", "debug", "!", "-", "to_int", "to_float", "len", "is_empty"]
    {
        FuncRegistration::new(name).set_into_module(&mut m, |cx: Cx<'_>, value: &mut Unknown| -> Native {
            Err(unknown(&cx, value))
        });
    }
    m.set_indexer_get_fn(|value: &mut Unknown, _: ImmutableString| -> Native {
        Ok(Dynamic::from(value.clone()))
    });
    m.set_indexer_get_fn(|value: &mut Unknown, _: i64| -> Native { Ok(Dynamic::from(value.clone())) });
    FuncRegistration::new("known")
        .with_params_info(["value: Dynamic", "Dynamic"])
        .with_comments([
            "/// Returns `value` if a plan knows all of it; otherwise the plan ends here and says what the \
             value depends on.",
            "///",
            "/// Use it for a value that a plan must know completely. In a run it does nothing.",
            "///",
            "/// ```rhai",
            "/// known([1, #{ a: 2 }]) == [1, #{ a: 2 }]",
            "/// ```",
        ])
        .set_into_module(&mut m, |cx: Cx<'_>, value: Dynamic| -> Native {
            match find_unknown(&value) {
                Some(origin) => Err(cx.throw(convert::unknown_in_plan(&origin))),
                None => Ok(value),
            }
        });
    FuncRegistration::new("known_error").set_into_module(
        &mut m,
        |cx: Cx<'_>, error: Dynamic| -> Native<()> {
            if is_about_unknown(&error) && Session::of(&cx).is_ok_and(|session| session.kernel.may_not_know())
            {
                return Err(cx.throw(convert::unknown_in_plan("an earlier effect")));
            }
            Ok(())
        },
    );
    m.set_iter_result(std::any::TypeId::of::<Unknown>(), |value: Dynamic| {
        let origin = value.try_cast::<Unknown>().map_or_else(String::new, |unknown| unknown.origin);
        Box::new(std::iter::once(Err(thrown_here(convert::unknown_in_plan(&origin)))))
    });

    // What `catch` binds.
    m.set_getter_fn("code", |e: &mut RunError| -> Native<String> { Ok(e.code.to_string()) });
    m.set_getter_fn("message", |e: &mut RunError| -> Native<String> { Ok(e.message.clone()) });
    m.set_getter_fn("effect", |e: &mut RunError| -> Native<String> {
        Ok(e.effect.as_deref().unwrap_or_default().to_owned())
    });
    m.set_getter_fn("hints", |e: &mut RunError| -> Native {
        Ok(Dynamic::from_array(e.hints.iter().map(|hint| hint.clone().into()).collect()))
    });
    m.set_getter_fn("detail", |e: &mut RunError| -> Native {
        Ok(e.detail.clone().map_or(Dynamic::UNIT, convert::from_json))
    });
    for name in ["to_string", "to_debug", "print", "debug"] {
        FuncRegistration::new(name).set_into_module(&mut m, |e: &mut RunError| -> Native<ImmutableString> {
            Ok(e.message.as_str().into())
        });
    }
    FuncRegistration::new("+").set_into_module(
        &mut m,
        |left: &mut ImmutableString, right: RunError| -> Native<ImmutableString> {
            Ok(format!("{left}{}", right.message).into())
        },
    );
    FuncRegistration::new("+=").set_into_module(
        &mut m,
        |left: &mut ImmutableString, right: RunError| -> Native<()> {
            *left = format!("{left}{}", right.message).into();
            Ok(())
        },
    );

    // Time is an effect: `timestamp` of the standard library would differ at each execution.
    FuncRegistration::new("timestamp").set_into_module(&mut m, || -> Native<()> {
        Err(thrown_here(
            RunError::new(codes::SCRIPT, "a script has no clock")
                .hint("the journal keeps the time of every effect; to wait, use sleep(\"30s\")"),
        ))
    });
    // Rhai's own form of other types in JSON is the name of the type.
    FuncRegistration::new("to_json").with_purity(true).set_into_module(
        &mut m,
        |cx: Cx<'_>, map: &mut rhai::Map| -> Native<String> {
            let json = convert::to_json(&Dynamic::from_map(map.clone())).and_then(|json| match json {
                json if convert::has_secret(&json) => Err(RunError::new(
                    codes::SECRET,
                    "a secret cannot become part of a text",
                )
                .hint(
                    "pass the secret itself as an option: its value is filled in when the request is sent",
                )),
                json => Ok(json.to_string()),
            });
            json.map_err(|error| cx.throw(error))
        },
    );
    answers::register(&mut m);
    for_replace(&mut m);
    m
}

/// Whether an error of Rhai's own, as `catch` binds it, is about a value that is not known.
fn is_about_unknown(error: &Dynamic) -> bool {
    let Some(fields) = error.read_lock::<rhai::Map>() else { return false };
    let text = |name: &str| fields.get(name).and_then(|v| v.clone().into_immutable_string().ok());
    let named = |name: &str| {
        text(name).is_some_and(|types| {
            types
                .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                .any(|word| word == UNKNOWN || word == std::any::type_name::<Unknown>())
        })
    };
    fields.contains_key("error") && ["function", "actual", "requested", "type"].into_iter().any(named)
}

/// What in a value a plan does not know.
fn find_unknown(value: &Dynamic) -> Option<String> {
    if let Some(unknown) = value.read_lock::<Unknown>() {
        return Some(unknown.origin.clone());
    }
    if let Some(items) = value.read_lock::<rhai::Array>() {
        return items.iter().find_map(find_unknown);
    }
    if let Some(map) = value.read_lock::<rhai::Map>() {
        return map.values().find_map(find_unknown);
    }
    None
}

/// `replace` of the standard library builds its result before any limit sees it: `s.replace("a", s)` takes gigabytes.
fn for_replace(m: &mut Module) {
    fn bounded(limit: usize, text: &mut ImmutableString, find: &str, with: &str) -> Native<()> {
        let found = if find.is_empty() { text.chars().count() + 1 } else { text.matches(find).count() };
        let size =
            text.len().saturating_sub(found * find.len()).saturating_add(found.saturating_mul(with.len()));
        if limit > 0 && size > limit {
            return Err(Box::new(EvalAltResult::ErrorDataTooLarge(
                "Length of string".into(),
                Position::NONE,
            )));
        }
        *text = text.replace(find, with).into();
        Ok(())
    }
    fn limit(cx: &Cx<'_>) -> usize {
        cx.engine().max_string_size()
    }
    FuncRegistration::new("replace").set_into_module(
        m,
        |cx: Cx<'_>, text: &mut ImmutableString, find: ImmutableString, with: ImmutableString| {
            bounded(limit(&cx), text, &find, &with)
        },
    );
    FuncRegistration::new("replace").set_into_module(
        m,
        |cx: Cx<'_>, text: &mut ImmutableString, find: char, with: ImmutableString| {
            bounded(limit(&cx), text, find.encode_utf8(&mut [0; 4]), &with)
        },
    );
    FuncRegistration::new("replace").set_into_module(
        m,
        |cx: Cx<'_>, text: &mut ImmutableString, find: ImmutableString, with: char| {
            bounded(limit(&cx), text, &find, with.encode_utf8(&mut [0; 4]))
        },
    );
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
