//! What is known of a loop.

use std::collections::{HashMap, HashSet};

use rhai::{ASTNode, Expr, FnPtr, Stmt};

use super::{
    Ends, Loop, Value,
    source::{Source, alters, mentioned},
};

/// A `for` over `items`.
pub(super) fn over(items: &Value, statement: &Stmt, source: &Source) -> Loop {
    let runs = matches!(items, Value::Array(items) if !items.is_empty());
    Loop { ends: Ends::Counted, runs, tells: tells(statement, source) }
}

/// A `while` or `loop`.
pub(super) fn on(condition: &Expr, statement: &Stmt, source: &Source) -> Loop {
    let ends = match condition {
        Expr::Unit(_) | Expr::BoolConstant(true, _) => Ends::Never,
        condition if counts(condition, statement) => Ends::Counted,
        _ => Ends::Found,
    };
    Loop { ends, runs: ends == Ends::Never, tells: tells(statement, source) }
}

/// Goes through a statement and the closures in it.
fn walk(
    statement: &Stmt,
    source: &Source,
    seen: &mut HashSet<String>,
    on_node: &mut dyn FnMut(&ASTNode<'_>),
) {
    let mut closures: Vec<String> = Vec::new();
    statement.walk(&mut Vec::new(), &mut |nodes: &[ASTNode<'_>]| {
        if let Some(node) = nodes.last() {
            on_node(node);
            if let ASTNode::Expr(Expr::DynamicConstant(value, _)) = node
                && let Some(pointer) = value.read_lock::<FnPtr>()
            {
                closures.push(pointer.fn_name().to_owned());
            }
        }
        true
    });
    for name in closures {
        if seen.insert(name.clone()) {
            for function in source.all(&name) {
                function.body.iter().for_each(|statement| walk(statement, source, seen, on_node));
            }
        }
    }
}

/// Whether what a loop finds out may be used outside: it alters a variable that is also mentioned elsewhere.
fn tells(statement: &Stmt, source: &Source) -> bool {
    let (mut altered, mut inside) = (HashSet::new(), HashMap::<String, usize>::new());
    walk(statement, source, &mut HashSet::new(), &mut |node| {
        altered.extend(alters(node).map(str::to_owned));
        if let Some(name) = mentioned(node) {
            *inside.entry(name.to_owned()).or_default() += 1;
        }
    });
    altered.iter().any(|name| source.mentions.get(name) > inside.get(name))
}

/// Whether a condition depends on nothing but counters, which the loop only counts up or down.
fn counts(condition: &Expr, statement: &Stmt) -> bool {
    let (mut names, mut plain) = (HashSet::new(), true);
    condition.walk(&mut Vec::new(), &mut |nodes: &[ASTNode<'_>]| {
        match nodes.last() {
            Some(ASTNode::Expr(Expr::Variable(variable, ..))) => {
                names.insert(variable.1.to_string());
            }
            Some(ASTNode::Expr(Expr::FnCall(call, _))) => plain &= call.is_operator_call(),
            Some(ASTNode::Expr(Expr::MethodCall(..) | Expr::Dot(..) | Expr::Index(..) | Expr::Stmt(_))) => {
                plain = false;
            }
            _ => {}
        }
        plain
    });
    let (mut counted, mut set) = (false, false);
    statement.walk(&mut Vec::new(), &mut |nodes: &[ASTNode<'_>]| {
        if let Some(node) = nodes.last()
            && alters(node).is_some_and(|name| names.contains(name))
        {
            match node {
                ASTNode::Stmt(Stmt::Assignment(assignment)) if assignment.0.is_op_assignment() => {
                    counted = true
                }
                _ => set = true,
            }
        }
        true
    });
    plain && counted && !set
}
