//! What is checked before a script runs: everything that would otherwise surface half-way through a deployment.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use rhai::{AST, ASTNode, Dynamic, Expr, FnAccess, FnCallExpr, FnPtr, Map, Position, Scope, Stmt};

use super::{
    Bundle, Functions, Header, Loaded, Places,
    arguments::literals,
    bundle::{Import, imports},
    conditions::params_in_functions,
    engine::{Natives, compile, optimized},
    syntax::{self, place},
    values::no_exit,
};
use crate::error::{RunError, codes, did_you_mean};

/// Functions that are part of the language.
const KEYWORDS: [&str; 10] =
    ["Fn", "call", "curry", "is_def_fn", "is_def_var", "is_shared", "print", "debug", "type_of", "this"];

/// Control words that act at once where they are called.
const CONTROL: [&str; 8] = ["confirm", "fail", "log", "manual", "note", "parallel", "sleep", "step"];

/// Checks a bundle without running anything.
///
/// # Errors
/// Everything that is wrong, each with its place.
pub fn check(bundle: &Bundle, functions: &Functions) -> Result<Header, Vec<RunError>> {
    load(bundle, functions).map(|(header, _)| header)
}

/// [`check`], keeping what was compiled.
pub(crate) fn load(bundle: &Bundle, functions: &Functions) -> Result<(Header, Loaded), Vec<RunError>> {
    let one = |e: RunError| vec![e];
    let header = Header::read(&syntax::parse(bundle.main_text(), &bundle.main).map_err(one)?, &bundle.main)
        .map_err(one)?;
    let checker = functions.checker();
    let mut errors = Vec::new();
    let mut asts = BTreeMap::new();
    let mut places = Places::default();
    for (file, text) in &bundle.files {
        if let Err(error) = syntax::places_fit(text, file) {
            return Err(one(error));
        }
        let mut scope = Scope::new();
        if *file == bundle.main {
            // Not a constant here: its value would be folded into the script.
            scope.push("params", Dynamic::UNIT);
        }
        match compile(&checker, &scope, &places.wrap(file, text), file) {
            Ok(ast) => {
                errors.extend(literals(&ast, functions.natives(), file));
                asts.insert(file.clone(), optimized(&checker, &scope, ast));
            }
            Err(mut error) => {
                // The parser does not know which modules there are to be meant.
                let named =
                    error.message.strip_prefix("no module named `").and_then(|rest| rest.strip_suffix('`'));
                if let Some(close) = named.and_then(|name| did_you_mean(name, functions.natives().modules()))
                {
                    error.hints.push(format!("did you mean `{close}`?"));
                }
                errors.push(error);
            }
        }
    }
    if asts.len() < bundle.files.len() {
        return Err(fixed(errors, &places));
    }
    let mut checks = Checks {
        natives: functions.natives(),
        header: &header,
        main: &bundle.main,
        bundle,
        asts: &asts,
        entries: asts.values().flat_map(entries).collect(),
        errors,
    };
    checks.names();
    for (file, ast) in &asts {
        checks.file(file, ast);
    }
    // In strict mode the parser finds all other names that a function cannot see; `params` it knows from the scope.
    let hidden = params_in_functions(bundle.main_text());
    let mut errors = fixed(checks.errors, &places);
    errors.extend(hidden.into_iter().map(|position| {
        let (line, column) = place(position);
        RunError::new(codes::UNKNOWN_VARIABLE, "no variable named `params` here")
            .hint("functions see only their arguments: pass what they need of `params`")
            .at("params", &*bundle.main, line, column)
    }));
    if !errors.is_empty() {
        errors.sort_by_key(|e| e.frames.first().map(|f| (f.source.clone(), f.line, f.column)));
        return Err(errors);
    }
    let Some(main) = asts.remove(&bundle.main) else {
        return Err(one(RunError::new(codes::IMPORT, format!("the bundle has no {}", bundle.main))));
    };
    Ok((header, Loaded { main, imports: Arc::new(asts), places: Arc::new(places) }))
}

fn fixed(mut errors: Vec<RunError>, places: &Places) -> Vec<RunError> {
    errors.iter_mut().flat_map(|error| &mut error.frames).for_each(|frame| places.fix(frame));
    errors
}

struct Checks<'a> {
    natives: &'a Natives,
    header: &'a Header,
    main: &'a str,
    bundle: &'a Bundle,
    asts: &'a BTreeMap<String, AST>,
    /// Names of entries of maps anywhere in the bundle: such an entry may be a closure that is called like a method.
    entries: HashSet<String>,
    errors: Vec<RunError>,
}

impl Checks<'_> {
    fn add(&mut self, error: RunError, what: &str, file: &str, position: Position) {
        let (line, column) = place(position);
        self.errors.push(error.at(what, file, line, column));
    }

    /// A closure that runs inside another file's function finds names of that file first, so no name may mean two things.
    fn names(&mut self) {
        let mut functions: HashMap<(String, usize), &str> = HashMap::new();
        let mut aliases: HashMap<String, (String, &str)> = HashMap::new();
        let asts = self.asts;
        for (file, ast) in asts {
            for function in ast.iter_functions().filter(|f| !f.name.starts_with("anon$")) {
                let (name, arity) = (function.name, function.params.len());
                let position =
                    function_position(self.bundle.files.get(file).map_or("", String::as_str), name);
                if self.natives.has("", name, arity) || name == EXIT || KEYWORDS.contains(&name) {
                    self.add(
                        RunError::new(
                            codes::AMBIGUOUS_NAME,
                            format!(
                                "the function `{name}` would hide a built-in function with {}",
                                arguments(arity)
                            ),
                        )
                        .hint("rename it"),
                        name,
                        file,
                        position,
                    );
                }
                if let Some(other) = functions.insert((name.to_owned(), arity), file) {
                    self.add(
                        RunError::new(
                            codes::AMBIGUOUS_NAME,
                            format!(
                                "the function `{name}` with {} is also defined in {other}",
                                arguments(arity)
                            ),
                        )
                        .hint("rename one of them: in closures, the caller would decide which one is meant"),
                        name,
                        file,
                        position,
                    );
                }
            }
            for Import { path, alias, line, column } in imports(ast, file).unwrap_or_default() {
                let wrong = |message: String| {
                    RunError::new(codes::AMBIGUOUS_NAME, message)
                        .at(&*alias, file.as_str(), line, column)
                        .hint("use another name after `as`")
                };
                if alias.is_empty() {
                    continue;
                }
                if self.natives.is_module(&alias) {
                    self.errors.push(wrong(format!("`{alias}` is the name of a built-in module")));
                }
                match aliases.get(&alias) {
                    Some((other, where_)) if *other != path => {
                        self.errors
                            .push(wrong(format!("`{alias}` is \"{path}\" here and \"{other}\" in {where_}")));
                    }
                    Some(_) => {}
                    None => {
                        aliases.insert(alias, (path, file));
                    }
                }
            }
        }
    }

    fn file(&mut self, file: &str, ast: &AST) {
        let found = match imports(ast, file) {
            Ok(found) => found,
            Err(error) => return self.errors.push(error),
        };
        for import in found.iter().filter(|import| !self.asts.contains_key(&format!("{}.rhai", import.path)))
        {
            let error =
                RunError::new(codes::IMPORT, format!("\"{}\" is not part of the bundle", import.path));
            self.errors.push(error.at("import", file, import.line, import.column));
        }
        let modules: HashMap<String, String> =
            found.into_iter().map(|i| (i.alias, format!("{}.rhai", i.path))).collect();
        if file != self.main {
            for statement in ast.statements() {
                if !matches!(statement, Stmt::Var(..) | Stmt::Import(..) | Stmt::Export(..) | Stmt::Noop(..))
                {
                    self.add(
                        RunError::new(
                            codes::IMPORT,
                            "an imported script may define only functions and constants",
                        )
                        .hint("move this into a function"),
                        "",
                        file,
                        statement.position(),
                    );
                }
            }
        }
        let mut seen: Vec<(RunError, String, Position)> = Vec::new();
        if file != self.main {
            for statement in ast.statements() {
                statement.walk(&mut Vec::new(), &mut |nodes: &[ASTNode<'_>]| {
                    if let Some(ASTNode::Expr(
                        Expr::FnCall(call, position) | Expr::MethodCall(call, position),
                    )) = nodes.last()
                        && !call.is_operator_call()
                    {
                        let error = RunError::new(
                            codes::IMPORT,
                            "a constant of an imported script may not call anything",
                        )
                        .hint(
                            "the first importer decides when an import is evaluated: move this into a \
                                function",
                        );
                        seen.push((error, call.name.to_string(), *position));
                    }
                    true
                });
            }
        }
        let is_main = file == self.main;
        ast.walk(&mut |nodes: &[ASTNode<'_>]| {
            match nodes.last() {
                Some(ASTNode::Expr(Expr::FnCall(call, position)))
                | Some(ASTNode::Stmt(Stmt::FnCall(call, position))) => {
                    if let Some(error) = self.call(call, false, ast, &modules) {
                        seen.push((error, call.name.to_string(), *position));
                    }
                    for (error, name, at) in self.eager(call).into_iter().chain(self.closures(call, ast)) {
                        seen.push((error, name, at));
                    }
                    if let Some(Expr::StringConstant(name, at)) =
                        call.args.first().filter(|_| call.name == "Fn")
                        && let Some(error) = self.pointer(name, ast)
                    {
                        seen.push((error, name.to_string(), *at));
                    }
                }
                Some(ASTNode::Expr(Expr::MethodCall(call, position))) => {
                    if let Some(error) = self.call(call, true, ast, &modules) {
                        seen.push((error, call.name.to_string(), *position));
                    }
                }
                Some(ASTNode::Expr(Expr::DynamicConstant(value, position))) => {
                    if let Some(pointer) = value.read_lock::<FnPtr>()
                        && !pointer.is_anonymous()
                        && let Some(error) = self.pointer(pointer.fn_name(), ast)
                    {
                        seen.push((error, pointer.fn_name().to_owned(), *position));
                    }
                }
                Some(ASTNode::Expr(Expr::Dot(pair, _, position))) if is_main => {
                    if let Some((name, at)) = parameter(&pair.lhs, &pair.rhs)
                        && !self.header.params.contains_key(name)
                    {
                        let at = if at.is_none() { *position } else { at };
                        seen.push((
                            RunError { code: codes::PARAMETER.into(), ..self.header.unknown(name) },
                            name.to_owned(),
                            at,
                        ));
                    }
                }
                Some(ASTNode::Stmt(Stmt::Share(captured))) => {
                    for (name, _) in captured.iter() {
                        if captures_loop_variable(nodes, &name.name, name.pos) {
                            let error = RunError::new(
                                codes::LOOP_CAPTURE,
                                format!(
                                    "this closure captures the loop variable `{0}`, which will have \
                                    changed when it runs",
                                    name.name
                                ),
                            )
                            .hint(format!(
                                "put `let {0} = {0};` before the closure, inside the loop",
                                name.name
                            ));
                            seen.push((error, name.name.to_string(), name.pos));
                        }
                    }
                }
                _ => {}
            }
            true
        });
        for (error, what, position) in seen {
            let (line, column) = place(position);
            let error = error.at(what, file, line, column);
            if !self.errors.contains(&error) {
                self.errors.push(error);
            }
        }
    }

    /// Closures that take another number of arguments than they will be called with: they would fail when they are needed.
    fn closures(&self, call: &FnCallExpr, ast: &AST) -> Vec<(RunError, String, Position)> {
        let module = call.namespace.to_string();
        let module = module.trim_end_matches("::");
        let branches = match &*call.args {
            [Expr::Array(items, _), ..] if call.name == "parallel" => {
                items.iter().filter_map(closure).collect()
            }
            [Expr::Map(items, _), ..] if call.name == "parallel" => {
                items.0.iter().filter_map(|(_, item)| closure(item)).collect()
            }
            // Without variables, arrays and maps have been made when the script was compiled.
            [Expr::DynamicConstant(value, position), ..] if call.name == "parallel" => {
                inside(value, *position)
            }
            _ => Vec::new(),
        };
        let declared = self.natives.closure(module, &call.name, call.args.len());
        let bodies = branches.into_iter().map(|branch| (branch, 0));
        let bodies = bodies.chain(declared.and_then(|takes| Some((closure(call.args.last()?)?, takes))));
        bodies
            .filter_map(|((name, curried, position), given)| {
                let takes =
                    ast.iter_functions().find(|f| f.name == name)?.params.len().checked_sub(curried)?;
                (takes != given).then(|| (wrong_closure(&call.name, given, takes), String::new(), position))
            })
            .collect()
    }

    /// What is wrong with `Fn("name")`.
    fn pointer(&self, name: &str, ast: &AST) -> Option<RunError> {
        if name == EXIT {
            return Some(no_exit());
        }
        let known =
            !self.natives.arities("", name).is_empty() || ast.iter_functions().any(|f| f.name == name);
        let names: Vec<&str> = ast.iter_functions().map(|f| f.name).collect();
        (!known && !KEYWORDS.contains(&name)).then(|| self.unknown("", name, 0, &names, ast))
    }

    /// Effects given to a control word that wants a closure: they would happen before it is even called.
    fn eager(&self, call: &FnCallExpr) -> Vec<(RunError, String, Position)> {
        let given: Vec<&Expr> = match (&*call.name, &*call.args) {
            _ if !call.namespace.is_empty() => Vec::new(),
            ("step", [_, body]) | ("on_rollback", [body]) => vec![body],
            ("parallel", [Expr::Array(branches, _)]) => branches.iter().collect(),
            ("parallel", [Expr::Map(branches, _)]) => branches.0.iter().map(|(_, branch)| branch).collect(),
            _ => Vec::new(),
        };
        let eager = given.into_iter().filter_map(|expression| match expression {
            Expr::FnCall(inner, position) => {
                let module = inner.namespace.to_string();
                let performs = if module.is_empty() {
                    CONTROL.contains(&&*inner.name)
                } else {
                    self.natives.is_module(module.trim_end_matches("::"))
                };
                performs.then_some((inner, *position))
            }
            _ => None,
        });
        eager
            .map(|(inner, position)| {
                let message =
                    format!("`{}` expects a closure; this runs at once, before `{0}` is called", call.name);
                let error = RunError::new(codes::ARGUMENT, message).hint("put `||` in front of it");
                (error, inner.name.to_string(), position)
            })
            .collect()
    }

    /// What is wrong with one call, if anything.
    fn call(
        &self,
        call: &FnCallExpr,
        method: bool,
        ast: &AST,
        modules: &HashMap<String, String>,
    ) -> Option<RunError> {
        if call.is_operator_call() || call.name.starts_with("anon$") {
            return None;
        }
        let name = &*call.name;
        let arguments_given = call.args.len();
        let script =
            |ast: &AST| ast.iter_functions().any(|f| f.name == name && f.params.len() == arguments_given);
        if !call.namespace.is_empty() {
            let module = call.namespace.to_string();
            let module = module.trim_end_matches("::");
            if let Some(imported) = modules.get(module).and_then(|file| self.asts.get(file)) {
                let public = |f: &rhai::ScriptFnMetadata<'_>| f.access == FnAccess::Public;
                let names: Vec<&str> = imported.iter_functions().filter(public).map(|f| f.name).collect();
                let private = imported
                    .iter_functions()
                    .any(|f| f.name == name && f.params.len() == arguments_given && !public(&f));
                if private {
                    return Some(
                        RunError::new(codes::UNKNOWN_FUNCTION, format!("`{module}::{name}` is private"))
                            .hint("remove `private` where it is defined, or call another function"),
                    );
                }
                return (!script(imported))
                    .then(|| self.unknown(module, name, arguments_given, &names, imported));
            }
            if self.natives.is_module(module) {
                if self.natives.has(module, name, arguments_given) {
                    return None;
                }
                let names: Vec<&str> = self.natives.names(module).into_iter().collect();
                return Some(self.unknown(module, name, arguments_given, &names, ast));
            }
            if module == "global" {
                return Some(
                    RunError::new(
                        codes::UNKNOWN_FUNCTION,
                        "`global::` does not work in closures that run elsewhere",
                    )
                    .hint("remove `global::`"),
                );
            }
            let error = RunError::new(codes::UNKNOWN_FUNCTION, format!("no module named `{module}`"));
            let known = self.natives.modules().chain(modules.keys().map(String::as_str));
            return Some(match did_you_mean(module, known) {
                Some(close) => error.hint(format!("did you mean `{close}`?")),
                None => error,
            });
        }
        if name == "type_of" && method {
            return Some(
                RunError::new(codes::UNKNOWN_FUNCTION, "`type_of` cannot be called like a method")
                    .hint("write type_of(x)"),
            );
        }
        if KEYWORDS.contains(&name) || method && self.entries.contains(name) {
            return None;
        }
        if name == EXIT {
            return Some(no_exit());
        }
        // `x.f(a)` is `f(x, a)`; a script function may also take `x` as `this`.
        let native_arity = arguments_given + usize::from(method);
        if script(ast) || self.natives.has("", name, native_arity) {
            return None;
        }
        if method && ast.iter_functions().any(|f| f.name == name && f.params.len() == native_arity) {
            return None;
        }
        let own: Vec<&str> = ast.iter_functions().map(|f| f.name).collect();
        let names: Vec<&str> = self.natives.names("").into_iter().chain(own).collect();
        Some(self.unknown("", name, native_arity, &names, ast))
    }

    fn unknown(&self, module: &str, name: &str, given: usize, names: &[&str], ast: &AST) -> RunError {
        let shown = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
        let mut arities = self.natives.arities(module, name);
        arities.extend(ast.iter_functions().filter(|f| f.name == name).map(|f| f.params.len()));
        arities.sort_unstable();
        arities.dedup();
        if !arities.is_empty() {
            let takes = arities.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            let error = RunError::new(
                codes::UNKNOWN_FUNCTION,
                format!(
                    "`{shown}` takes {takes} argument{}, not {given}",
                    if takes == "1" { "" } else { "s" }
                ),
            );
            // `shift("web", "green", 5)` without its module: arrays have a `shift` of their own.
            let elsewhere = self.natives.modules().find(|m| self.natives.has(m, name, given));
            return match elsewhere.filter(|_| module.is_empty()) {
                Some(found) => error.hint(format!("did you mean `{found}::{name}`?")),
                None => error,
            };
        }
        let error = RunError::new(codes::UNKNOWN_FUNCTION, format!("no function named `{shown}`"));
        let plain = names
            .iter()
            .copied()
            .filter(|n| n.starts_with(|c: char| c.is_ascii_alphabetic()) && !n.contains('$'));
        if let Some(close) = did_you_mean(name, plain) {
            let close = if module.is_empty() { close.to_owned() } else { format!("{module}::{close}") };
            return error.hint(format!("did you mean `{close}`?"));
        }
        // `shift("web", …)` without its module.
        let elsewhere = self.natives.modules().find(|m| !self.natives.arities(m, name).is_empty());
        match elsewhere {
            Some(found) if module.is_empty() => error.hint(format!("did you mean `{found}::{name}`?")),
            _ => error,
        }
    }
}

/// Names of all entries of maps in a script.
fn entries(ast: &AST) -> Vec<String> {
    fn inside(value: &Dynamic, names: &mut Vec<String>) {
        if let Some(map) = value.read_lock::<Map>() {
            for (name, item) in &*map {
                names.push(name.to_string());
                inside(item, names);
            }
        }
        if let Some(items) = value.read_lock::<rhai::Array>() {
            items.iter().for_each(|item| inside(item, names));
        }
    }
    let mut names = Vec::new();
    ast.walk(&mut |nodes: &[ASTNode<'_>]| {
        match nodes.last() {
            Some(ASTNode::Expr(Expr::Map(map, _))) => {
                names.extend(map.0.iter().map(|(name, _)| name.name.to_string()));
            }
            Some(ASTNode::Expr(Expr::DynamicConstant(value, _))) => inside(value, &mut names),
            Some(ASTNode::Expr(Expr::Property(property, _))) => names.push(property.2.to_string()),
            _ => {}
        }
        true
    });
    names
}

/// A closure that is written out: the name of its function, how many values it takes along, and where it stands.
fn closure(expression: &Expr) -> Option<(String, usize, Position)> {
    match expression {
        Expr::DynamicConstant(value, position) => {
            let pointer = value.read_lock::<FnPtr>().filter(|pointer| pointer.is_anonymous())?;
            Some((pointer.fn_name().to_owned(), pointer.curry().len(), *position))
        }
        Expr::FnCall(call, position) if call.name == "curry" => {
            let (first, taken) = call.args.split_first()?;
            let (name, curried, _) = closure(first)?;
            Some((name, curried + taken.len(), *position))
        }
        Expr::Stmt(block) => match block.statements() {
            [Stmt::Share(..), Stmt::Expr(inner)] => closure(inner),
            [Stmt::Share(..), Stmt::FnCall(call, position)] => {
                closure(&Expr::FnCall(call.clone(), *position))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The closures in an array or a map.
fn inside(value: &Dynamic, position: Position) -> Vec<(String, usize, Position)> {
    let one = |item: &Dynamic| {
        let pointer = item.read_lock::<FnPtr>().filter(|pointer| pointer.is_anonymous())?;
        Some((pointer.fn_name().to_owned(), pointer.curry().len(), position))
    };
    let items = value.read_lock::<rhai::Array>().map(|items| items.iter().filter_map(one).collect());
    let entries = || value.read_lock::<Map>().map(|entries| entries.values().filter_map(one).collect());
    items.or_else(entries).unwrap_or_default()
}

/// The error for a closure that takes another number of arguments than `word` calls it with.
pub(super) fn wrong_closure(word: &str, given: usize, takes: usize) -> RunError {
    let with = if given == 0 { "no arguments".to_owned() } else { arguments(given) };
    let message = format!("`{word}` calls this closure with {with}, but it takes {takes}");
    let form = match given {
        0 => "|| …".to_owned(),
        _ => format!("|{}| …", ["a", "b", "c"][..given.min(3)].join(", ")),
    };
    RunError::new(codes::ARGUMENT, message).hint(format!("write it as {form}"))
}

/// A leftover of the language that would end a run as if it had succeeded.
const EXIT: &str = "exit";

fn arguments(n: usize) -> String {
    format!("{n} argument{}", if n == 1 { "" } else { "s" })
}

/// `params.NAME` at the start of a chain.
fn parameter<'a>(left: &Expr, right: &'a Expr) -> Option<(&'a str, Position)> {
    match left {
        Expr::Variable(variable, ..) if variable.1 == "params" && variable.2.is_empty() => {}
        _ => return None,
    }
    let first = match right {
        Expr::Dot(pair, ..) | Expr::Index(pair, ..) => &pair.lhs,
        other => other,
    };
    match first {
        Expr::Property(property, position) => Some((property.2.as_str(), *position)),
        _ => None,
    }
}

/// Where a function is defined. Rhai's metadata has no positions of functions, so it is looked for in the text.
fn function_position(text: &str, name: &str) -> Position {
    let names = |line: &str| {
        let after =
            line.trim_start().trim_start_matches("private ").trim_start().strip_prefix("fn ")?.trim_start();
        let rest = after.strip_prefix(name)?;
        (!rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')).then(|| line.len() - after.len())
    };
    let place = text.lines().enumerate().find_map(|(i, line)| Some((i + 1, names(line)? + 1)));
    place.map_or(Position::NONE, |(line, column)| {
        Position::new(
            u16::try_from(line).unwrap_or(u16::MAX).max(1),
            u16::try_from(column).unwrap_or(u16::MAX),
        )
    })
}

/// Whether `name`, captured at `position`, is a variable of a `for` around it that nothing in between shadows.
fn captures_loop_variable(nodes: &[ASTNode<'_>], name: &str, position: Position) -> bool {
    let shadowed = |block: &[Stmt]| {
        block.iter().any(|statement| matches!(statement, Stmt::Var(v, ..) if v.0.name == name && before(v.0.pos, position)))
    };
    for node in nodes.iter().rev() {
        match node {
            ASTNode::Stmt(Stmt::For(parts, _)) => {
                if shadowed(parts.2.body.statements()) {
                    return false;
                }
                if parts.0.name == name || parts.1.as_ref().is_some_and(|counter| counter.name == name) {
                    return true;
                }
            }
            ASTNode::Stmt(Stmt::Block(block)) if shadowed(block.statements()) => return false,
            ASTNode::Expr(Expr::Stmt(block)) if shadowed(block.statements()) => return false,
            ASTNode::Stmt(
                Stmt::If(flow, _) | Stmt::While(flow, _) | Stmt::Do(flow, ..) | Stmt::TryCatch(flow, _),
            ) if shadowed(flow.body.statements()) || shadowed(flow.branch.statements()) => {
                return false;
            }
            _ => {}
        }
    }
    false
}

fn before(a: Position, b: Position) -> bool {
    (a.line(), a.position()) < (b.line(), b.position())
}
