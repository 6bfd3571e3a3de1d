//! Makes an outline of syntax trees.

use std::{collections::BTreeMap, rc::Rc};

use rhai::{ASTFlags, Expr, FlowControl, FnPtr, Position, Stmt, StmtBlock};

use super::{
    super::{Bundle, Functions, Header, syntax},
    Leave, Node, Outline, Part, PartKind, Place, Value, loops,
    source::{Source, sources},
};
use crate::error::Frame;

/// Deepest nesting that is followed, of blocks, expressions and calls together. What is called by itself comes to it.
const DEEPEST: usize = 120;

/// Most things in an outline. A script that calls functions in functions can have more; the rest is not followed.
const MOST: usize = 10_000;

impl Outline {
    /// The outline of a bundle. `None` if it does not parse.
    pub(crate) fn of(bundle: &Bundle, functions: &Functions) -> Option<Self> {
        let sources = sources(bundle)?;
        let main = sources.get(&bundle.main)?;
        let header =
            Header::read(&syntax::parse(bundle.main_text(), &bundle.main).ok()?, &bundle.main).ok()?;
        let mut build = Build { functions, sources: &sources, told: 0, depth: 0, left: MOST };
        let mut scope = Scope { source: main, names: Vec::new(), way: Vec::new() };
        let body = build.statements(&main.statements, &mut scope).0;
        Some(Self { body, has_deadline: header.deadline.is_some() })
    }
}

/// A closure with what it has taken along.
#[derive(Clone)]
pub(super) struct Closure<'a> {
    pub(super) source: &'a Source,
    pub(super) name: String,
    pub(super) taken: Vec<Known<'a>>,
}

impl<'a> Closure<'a> {
    pub(super) fn of(pointer: &FnPtr, source: &'a Source) -> Self {
        // Constants that it takes along are put into it before it is run.
        let taken = pointer.iter_curry().map(|value| Known::Value(Value::from(value))).collect();
        Self { source, name: pointer.fn_name().to_owned(), taken }
    }
}

/// What a name stands for.
#[derive(Clone)]
pub(super) enum Known<'a> {
    Value(Value),
    Closure(Rc<Closure<'a>>),
}

impl Known<'_> {
    pub(super) const NOTHING: Self = Self::Value(Value::Unknown);

    pub(super) fn value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Closure(_) => Value::Unknown,
        }
    }
}

/// The names that can be seen at a place.
pub(super) struct Scope<'a> {
    pub(super) source: &'a Source,
    names: Vec<(String, Known<'a>)>,
    pub(super) way: Vec<Frame>,
}

impl<'a> Scope<'a> {
    pub(super) fn place(&self, position: Position) -> Place {
        let (line, column) = syntax::place(position);
        Place { file: self.source.file.clone(), line, column }
    }

    fn find(&self, name: &str) -> Known<'a> {
        let found = self.names.iter().rev().find(|(known, _)| known == name);
        found.map_or(Known::NOTHING, |(_, known)| known.clone())
    }

    /// The parameter that `left.right` is.
    fn parameter(&self, left: &Expr, right: &Expr) -> Option<Value> {
        const PARAMS: &str = "params";
        let (Expr::Variable(variable, ..), Expr::Property(property, ..)) = (left, right) else { return None };
        let own = self.names.iter().any(|(name, _)| name == PARAMS) || self.source.altered.contains(PARAMS);
        (variable.1 == PARAMS && variable.2.is_empty() && !own).then(|| Value::parameter(&property.2))
    }

    fn learn(&mut self, name: &str, known: Known<'a>) {
        let known = if self.source.altered.contains(name) { Known::NOTHING } else { known };
        self.names.push((name.to_owned(), known));
    }
}

/// What statements or an expression do, and what they come to.
type Done<'a> = (Vec<Node>, Known<'a>);

pub(super) struct Build<'a> {
    pub(super) functions: &'a Functions,
    pub(super) sources: &'a BTreeMap<String, Source>,
    /// How many calls around only show to people what they are given.
    pub(super) told: usize,
    depth: usize,
    left: usize,
}

impl<'a> Build<'a> {
    fn statements(&mut self, statements: &[Stmt], scope: &mut Scope<'a>) -> Done<'a> {
        if self.depth >= DEEPEST {
            return (vec![Node::Unknown], Known::NOTHING);
        }
        self.depth += 1;
        let known = scope.names.len();
        let (mut nodes, mut last) = (Vec::new(), Known::NOTHING);
        for statement in statements {
            last = self.statement(statement, scope, &mut nodes);
        }
        scope.names.truncate(known);
        self.depth -= 1;
        (nodes, last)
    }

    fn block(&mut self, block: &StmtBlock, scope: &mut Scope<'a>) -> Vec<Node> {
        self.statements(block.statements(), scope).0
    }

    fn statement(&mut self, statement: &Stmt, scope: &mut Scope<'a>, nodes: &mut Vec<Node>) -> Known<'a> {
        let Some(left) = self.left.checked_sub(1) else {
            nodes.push(Node::Unknown);
            return Known::NOTHING;
        };
        self.left = left;
        match statement {
            Stmt::Expr(expression) => return self.expression(expression, scope, nodes),
            Stmt::FnCall(call, position) => return self.call(call, *position, scope, nodes),
            Stmt::Block(block) => {
                let (inside, last) = self.statements(block.statements(), scope);
                nodes.extend(inside);
                return last;
            }
            Stmt::Var(parts, ..) => {
                let known = self.expression(&parts.1, scope, nodes);
                scope.learn(&parts.0.name, known);
            }
            Stmt::Assignment(parts) => {
                let given = self.expression(&parts.1.rhs, scope, nodes);
                self.escape(given, scope, nodes);
                self.expression(&parts.1.lhs, scope, nodes);
            }
            Stmt::If(flow, position) => {
                self.expression(&flow.expr, scope, nodes);
                let bodies = vec![self.block(&flow.body, scope), self.block(&flow.branch, scope)];
                nodes.push(part(PartKind::Choice, bodies, *position, scope));
            }
            Stmt::Switch(parts, position) => {
                let (subject, cases) = &**parts;
                self.expression(subject, scope, nodes);
                let mut bodies = Vec::new();
                for case in &cases.expressions {
                    let mut inside = Vec::new();
                    self.expression(&case.lhs, scope, &mut inside);
                    self.expression(&case.rhs, scope, &mut inside);
                    bodies.push(inside);
                }
                if cases.def_case.is_none() {
                    bodies.push(Vec::new());
                }
                nodes.push(part(PartKind::Choice, bodies, *position, scope));
            }
            Stmt::While(flow, position) => {
                let about = loops::on(&flow.expr, statement, scope.source);
                let mut body = Vec::new();
                self.expression(&flow.expr, scope, &mut body);
                body.extend(self.block(&flow.body, scope));
                nodes.push(part(PartKind::Loop(about), vec![body], *position, scope));
            }
            Stmt::Do(flow, _, position) => {
                // Whether it ends by the condition or by its opposite makes no difference to what is known.
                let about = super::Loop { runs: true, ..loops::on(&flow.expr, statement, scope.source) };
                let mut body = self.block(&flow.body, scope);
                self.expression(&flow.expr, scope, &mut body);
                nodes.push(part(PartKind::Loop(about), vec![body], *position, scope));
            }
            Stmt::For(parts, position) => self.each(statement, parts, *position, scope, nodes),
            Stmt::TryCatch(flow, position) => {
                let tried = self.block(&flow.body, scope);
                let known = scope.names.len();
                if let Expr::Variable(variable, ..) = &flow.expr {
                    scope.learn(&variable.1, Known::NOTHING);
                }
                let caught = self.block(&flow.branch, scope);
                scope.names.truncate(known);
                nodes.push(part(PartKind::Try, vec![tried, caught], *position, scope));
            }
            Stmt::BreakLoop(value, flags, _) => {
                let value = self.optional(value.as_deref(), scope, nodes);
                let out = flags.contains(ASTFlags::BREAK);
                nodes.push(Node::Leave(if out { Leave::Break { value } } else { Leave::Continue }));
            }
            Stmt::Return(value, flags, _) => {
                let value = self.optional(value.as_deref(), scope, nodes);
                let throws = flags.contains(ASTFlags::BREAK);
                nodes.push(Node::Leave(if throws { Leave::Throw } else { Leave::Return { value } }));
            }
            _ => {}
        }
        Known::NOTHING
    }

    fn each(
        &mut self,
        statement: &Stmt,
        parts: &(rhai::Ident, Option<rhai::Ident>, FlowControl),
        position: Position,
        scope: &mut Scope<'a>,
        nodes: &mut Vec<Node>,
    ) {
        let (name, counter, flow) = parts;
        let items = self.expression(&flow.expr, scope, nodes).value();
        let about = loops::over(&items, statement, scope.source);
        let known = scope.names.len();
        scope.learn(&name.name, Known::Value(items.item()));
        if let Some(counter) = counter {
            scope.learn(&counter.name, Known::NOTHING);
        }
        let body = self.block(&flow.body, scope);
        scope.names.truncate(known);
        nodes.push(part(PartKind::Loop(about), vec![body], position, scope));
    }

    /// What may stand behind `break` and `return`; whether there is something.
    fn optional(&mut self, value: Option<&Expr>, scope: &mut Scope<'a>, nodes: &mut Vec<Node>) -> bool {
        if let Some(value) = value {
            let known = self.expression(value, scope, nodes);
            self.escape(known, scope, nodes);
        }
        value.is_some()
    }

    pub(super) fn expression(
        &mut self,
        expression: &Expr,
        scope: &mut Scope<'a>,
        nodes: &mut Vec<Node>,
    ) -> Known<'a> {
        if self.depth >= DEEPEST {
            nodes.push(Node::Unknown);
            return Known::NOTHING;
        }
        self.depth += 1;
        let known = self.inner(expression, scope, nodes);
        self.depth -= 1;
        known
    }

    fn inner(&mut self, expression: &Expr, scope: &mut Scope<'a>, nodes: &mut Vec<Node>) -> Known<'a> {
        let value = match expression {
            Expr::DynamicConstant(value, _) => match value.read_lock::<FnPtr>() {
                Some(pointer) if pointer.is_anonymous() => {
                    return Known::Closure(Rc::new(Closure::of(&pointer, scope.source)));
                }
                Some(_) => Value::Unknown,
                None => Value::from(&**value),
            },
            Expr::BoolConstant(value, _) => Value::Bool(*value),
            Expr::IntegerConstant(value, _) => Value::Int(*value),
            Expr::FloatConstant(value, _) => Value::Float(**value),
            Expr::StringConstant(text, _) => Value::Text(text.to_string()),
            Expr::Unit(_) => Value::Unit,
            Expr::Variable(variable, ..) if variable.2.is_empty() => return scope.find(&variable.1),
            Expr::InterpolatedString(pieces, _) => {
                let parts: Vec<Value> =
                    pieces.iter().map(|piece| self.expression(piece, scope, nodes).value()).collect();
                Value::joined(&parts)
            }
            Expr::Array(items, _) => {
                Value::Array(items.iter().map(|item| self.escaped(item, scope, nodes)).collect())
            }
            Expr::Map(map, _) => {
                let entries = map.0.iter();
                let entries =
                    entries.map(|(name, item)| (name.name.to_string(), self.escaped(item, scope, nodes)));
                Value::Map(entries.collect())
            }
            Expr::Stmt(block) => {
                let (inside, last) = self.statements(block.statements(), scope);
                nodes.extend(inside);
                return last;
            }
            Expr::FnCall(call, position) => return self.call(call, *position, scope, nodes),
            Expr::Dot(pair, ..) | Expr::Index(pair, ..) => {
                if let Some(parameter) = scope.parameter(&pair.lhs, &pair.rhs) {
                    return Known::Value(parameter);
                }
                let left = self.expression(&pair.lhs, scope, nodes);
                self.chain(left, &pair.rhs, scope, nodes);
                Value::Unknown
            }
            Expr::And(items, position) | Expr::Or(items, position) | Expr::Coalesce(items, position) => {
                let mut rest = items.iter();
                if let Some(first) = rest.next() {
                    self.expression(first, scope, nodes);
                }
                let mut sometimes = Vec::new();
                for item in rest {
                    self.expression(item, scope, &mut sometimes);
                }
                if !sometimes.is_empty() {
                    nodes.push(part(PartKind::Choice, vec![sometimes, Vec::new()], *position, scope));
                }
                Value::Unknown
            }
            _ => Value::Unknown,
        };
        Known::Value(value)
    }

    /// The value of something that is put where it cannot be followed.
    pub(super) fn escaped(
        &mut self,
        expression: &Expr,
        scope: &mut Scope<'a>,
        nodes: &mut Vec<Node>,
    ) -> Value {
        let known = self.expression(expression, scope, nodes);
        self.escape(known.clone(), scope, nodes);
        known.value()
    }

    /// A closure that goes where it cannot be followed.
    fn escape(&mut self, known: Known<'a>, scope: &mut Scope<'a>, nodes: &mut Vec<Node>) {
        if let Known::Closure(closure) = known {
            let body = self.inside(&closure, &[], scope);
            nodes.push(part(PartKind::Closure, vec![body], Position::NONE, scope));
        }
    }

    /// What follows a value behind a dot or in brackets.
    fn chain(&mut self, of: Known<'a>, rest: &Expr, scope: &mut Scope<'a>, nodes: &mut Vec<Node>) {
        match rest {
            Expr::MethodCall(call, position) => match of {
                Known::Closure(closure) if call.name == "call" => {
                    let args: Vec<Known<'a>> =
                        call.args.iter().map(|arg| self.expression(arg, scope, nodes)).collect();
                    let body = self.inside(&closure, &args, scope);
                    nodes.push(part(PartKind::Function, vec![body], *position, scope));
                }
                of => {
                    self.escape(of, scope, nodes);
                    for arg in &call.args {
                        self.escaped(arg, scope, nodes);
                    }
                    let arity = call.args.len();
                    let own =
                        [arity, arity + 1].iter().any(|n| scope.source.function(&call.name, *n).is_some());
                    if own || call.name == "call" {
                        nodes.push(Node::Unknown);
                    }
                }
            },
            Expr::Dot(pair, ..) | Expr::Index(pair, ..) => {
                self.chain(of, &pair.lhs, scope, nodes);
                self.chain(Known::NOTHING, &pair.rhs, scope, nodes);
            }
            Expr::Property(..) => {}
            other => {
                self.escaped(other, scope, nodes);
            }
        }
    }

    /// The body of a closure that is called with `args`, in the middle of `scope`.
    pub(super) fn inside(
        &mut self,
        closure: &Closure<'a>,
        args: &[Known<'a>],
        scope: &Scope<'a>,
    ) -> Vec<Node> {
        let arity = closure.source.all(&closure.name).first().map_or(0, |function| function.params.len());
        let given = closure.taken.iter().chain(args).cloned().collect();
        self.enter(closure.source, &closure.name, arity, given, scope.way.clone())
    }

    /// The body of a function.
    pub(super) fn enter(
        &mut self,
        source: &'a Source,
        name: &str,
        arity: usize,
        mut given: Vec<Known<'a>>,
        way: Vec<Frame>,
    ) -> Vec<Node> {
        let Some(function) = source.function(name, arity) else {
            return vec![Node::Unknown];
        };
        given.resize(arity, Known::NOTHING);
        let mut scope = Scope { source, names: Vec::new(), way };
        for (name, known) in function.params.iter().zip(given) {
            // Functions of one script share names; one that is altered anywhere is not known anywhere.
            scope.learn(name, known);
        }
        self.statements(&function.body, &mut scope).0
    }
}

pub(super) fn part(kind: PartKind, bodies: Vec<Vec<Node>>, at: Position, scope: &Scope<'_>) -> Node {
    Node::Part(Part { kind, place: scope.place(at), way: scope.way.clone(), bodies })
}
