//! The scripts that an outline is made from.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use rhai::{AST, ASTNode, Expr, Stmt};

use super::super::{bundle::imports, syntax};
use crate::script::Bundle;

/// Most functions and closures of one script. More take too long to be taken apart.
const MOST: usize = 5_000;

/// A function or closure.
pub(super) struct Function {
    pub(super) params: Vec<String>,
    pub(super) body: Vec<Stmt>,
}

/// One script, taken apart.
pub(super) struct Source {
    pub(super) file: Arc<str>,
    pub(super) statements: Vec<Stmt>,
    functions: HashMap<String, Vec<Function>>,
    /// Files by the name behind `as`.
    pub(super) imports: HashMap<String, String>,
    /// Variables whose value may be another one later.
    pub(super) altered: HashSet<String>,
    /// How often each variable is mentioned, besides where it is made.
    pub(super) mentions: HashMap<String, usize>,
}

impl Source {
    fn new(file: &str, ast: &AST) -> Self {
        let imports = imports(ast, file).unwrap_or_default();
        let mut functions = HashMap::new();
        take_apart(ast.clone_functions_only(), &mut functions);
        let (mut altered, mut mentions) = (HashSet::new(), HashMap::new());
        ast.walk(&mut |nodes: &[ASTNode<'_>]| {
            altered.extend(nodes.last().and_then(alters).map(str::to_owned));
            if let Some(name) = nodes.last().and_then(mentioned) {
                *mentions.entry(name.to_owned()).or_default() += 1;
            }
            true
        });
        Self {
            file: file.into(),
            statements: ast.statements().to_vec(),
            functions,
            imports: imports.into_iter().map(|i| (i.alias, format!("{}.rhai", i.path))).collect(),
            altered,
            mentions,
        }
    }

    /// All functions of that name.
    pub(super) fn all(&self, name: &str) -> &[Function] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn function(&self, name: &str, arity: usize) -> Option<&Function> {
        self.all(name).iter().find(|function| function.params.len() == arity)
    }
}

/// All scripts of a bundle by name. `None` if one does not parse, or has too many functions to be taken apart.
pub(super) fn sources(bundle: &Bundle) -> Option<BTreeMap<String, Source>> {
    let source = |(file, text): (&String, &String)| {
        let ast = syntax::parse(text, file).ok()?;
        (ast.iter_functions().count() <= MOST).then(|| (file.clone(), Source::new(file, &ast)))
    };
    bundle.files.iter().map(source).collect()
}

/// The functions of a script. Rhai hands out the statements of all of them in one, so they are halved until each is alone.
fn take_apart(functions: AST, into: &mut HashMap<String, Vec<Function>>) {
    let all: Vec<(String, Vec<String>)> = functions
        .iter_functions()
        .map(|f| (f.name.to_owned(), f.params.iter().map(ToString::to_string).collect()))
        .collect();
    match &all[..] {
        [] => {}
        [(name, params)] => {
            let function = Function { params: params.clone(), body: statements(&functions) };
            into.entry(name.clone()).or_default().push(function);
        }
        all => {
            let (left, right) = all.split_at(all.len() / 2);
            for half in [left, right] {
                let half: HashSet<(&str, usize)> =
                    half.iter().map(|(name, params)| (&**name, params.len())).collect();
                let mut part = functions.clone();
                part.retain_functions(|_, _, name, arity| half.contains(&(name, arity)));
                take_apart(part, into);
            }
        }
    }
}

fn statements(ast: &AST) -> Vec<Stmt> {
    let mut statements = Vec::new();
    ast.walk(&mut |nodes: &[ASTNode<'_>]| {
        if let [ASTNode::Stmt(statement)] = nodes {
            statements.push((*statement).clone());
        }
        true
    });
    statements
}

/// The variable that a node may give another value.
pub(super) fn alters<'a>(node: &ASTNode<'a>) -> Option<&'a str> {
    match node {
        ASTNode::Stmt(Stmt::Assignment(assignment)) => root(&assignment.1.lhs),
        // What a method does to the value that it is called on is not known.
        ASTNode::Expr(Expr::Dot(pair, ..)) if calls_method(&pair.rhs) => root(&pair.lhs),
        _ => None,
    }
}

/// The variable that a node mentions.
pub(super) fn mentioned<'a>(node: &ASTNode<'a>) -> Option<&'a str> {
    match node {
        ASTNode::Expr(Expr::Variable(variable, ..)) => Some(&variable.1),
        _ => None,
    }
}

fn calls_method(expression: &Expr) -> bool {
    match expression {
        Expr::MethodCall(call, _) => call.name != "call",
        Expr::Dot(pair, ..) | Expr::Index(pair, ..) => calls_method(&pair.lhs) || calls_method(&pair.rhs),
        _ => false,
    }
}

/// The variable at the beginning of a chain such as `a.b[c].d`.
pub(super) fn root(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Variable(variable, ..) => Some(&variable.1),
        Expr::Dot(pair, ..) | Expr::Index(pair, ..) => root(&pair.lhs),
        _ => None,
    }
}
