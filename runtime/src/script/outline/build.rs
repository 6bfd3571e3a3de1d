//! Makes an outline of syntax trees.

use std::{collections::BTreeMap, rc::Rc};

use rhai::{ASTFlags, Dynamic, Expr, FlowControl, FnCallExpr, FnPtr, Position, Stmt, StmtBlock};

use super::{
    super::{Bundle, Deed, Header, Library, syntax},
    Call, Leave, Node, Outline, Part, PartKind, Place, Value, loops,
    source::{Source, sources},
};
use crate::error::Frame;

/// Deepest nesting that is followed, of blocks, expressions and calls together. What is called by itself comes to it.
const DEEPEST: usize = 120;

/// Most things in an outline. A script that calls functions in functions can have more; the rest is not followed.
const MOST: usize = 10_000;

impl Outline {
    /// The outline of a bundle. `None` if it does not parse.
    pub(crate) fn of(bundle: &Bundle, library: &Library) -> Option<Self> {
        let sources = sources(bundle)?;
        let main = sources.get(&bundle.main)?;
        let header =
            Header::read(&syntax::parse(bundle.main_text(), &bundle.main).ok()?, &bundle.main).ok()?;
        let mut build = Build { library, sources: &sources, told: 0, depth: 0, left: MOST };
        let mut scope = Scope { source: main, names: Vec::new(), way: Vec::new() };
        let body = build.statements(&main.statements, &mut scope).0;
        Some(Self { body, has_deadline: header.deadline.is_some() })
    }
}

/// A closure with what it has taken along.
#[derive(Clone)]
struct Closure<'a> {
    source: &'a Source,
    name: String,
    taken: Vec<Known<'a>>,
}

impl<'a> Closure<'a> {
    fn of(pointer: &FnPtr, source: &'a Source) -> Self {
        // Constants that it takes along are put into it before it is run.
        let taken = pointer.iter_curry().map(|value| Known::Value(Value::from(value))).collect();
        Self { source, name: pointer.fn_name().to_owned(), taken }
    }
}

/// What a name stands for.
#[derive(Clone)]
enum Known<'a> {
    Value(Value),
    Closure(Rc<Closure<'a>>),
}

impl Known<'_> {
    const NOTHING: Self = Self::Value(Value::Unknown);

    fn value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Closure(_) => Value::Unknown,
        }
    }
}

/// The names that can be seen at a place.
struct Scope<'a> {
    source: &'a Source,
    names: Vec<(String, Known<'a>)>,
    way: Vec<Frame>,
}

impl<'a> Scope<'a> {
    fn place(&self, position: Position) -> Place {
        let (line, column) = syntax::place(position);
        Place { file: self.source.file.clone(), line, column }
    }

    fn find(&self, name: &str) -> Known<'a> {
        let found = self.names.iter().rev().find(|(known, _)| known == name);
        found.map_or(Known::NOTHING, |(_, known)| known.clone())
    }

    fn learn(&mut self, name: &str, known: Known<'a>) {
        let known = if self.source.altered.contains(name) { Known::NOTHING } else { known };
        self.names.push((name.to_owned(), known));
    }
}

/// What statements or an expression do, and what they come to.
type Done<'a> = (Vec<Node>, Known<'a>);

struct Build<'a> {
    library: &'a Library,
    sources: &'a BTreeMap<String, Source>,
    /// How many calls around only show to people what they are given.
    told: usize,
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

    fn expression(&mut self, expression: &Expr, scope: &mut Scope<'a>, nodes: &mut Vec<Node>) -> Known<'a> {
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
                let mut text = Some(String::new());
                for piece in pieces.iter() {
                    let shown = self.expression(piece, scope, nodes).value().shown();
                    text = text.zip(shown).map(|(text, more)| text + more.as_str());
                }
                text.map_or(Value::Unknown, Value::Text)
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
    fn escaped(&mut self, expression: &Expr, scope: &mut Scope<'a>, nodes: &mut Vec<Node>) -> Value {
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
    fn inside(&mut self, closure: &Closure<'a>, args: &[Known<'a>], scope: &Scope<'a>) -> Vec<Node> {
        let arity = closure.source.all(&closure.name).first().map_or(0, |function| function.params.len());
        let given = closure.taken.iter().chain(args).cloned().collect();
        self.enter(closure.source, &closure.name, arity, given, scope.way.clone())
    }

    /// The body of a function.
    fn enter(
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

    fn call(
        &mut self,
        call: &FnCallExpr,
        position: Position,
        scope: &mut Scope<'a>,
        nodes: &mut Vec<Node>,
    ) -> Known<'a> {
        if call.is_operator_call() {
            return Known::Value(self.operator(call, scope, nodes));
        }
        let module = call.namespace.to_string();
        let module = module.trim_end_matches("::");
        let at = if call.namespace.is_empty() { position } else { call.namespace.position() };
        if module.is_empty() && call.name == "curry" {
            return self.capture(call, scope, nodes);
        }
        let name = if module.is_empty() { call.name.to_string() } else { format!("{module}::{}", call.name) };
        let imported = scope.source.imports.get(module).and_then(|file| self.sources.get(file));
        let own = if module.is_empty() { Some(scope.source) } else { imported };
        if let Some(source) = own.filter(|source| source.function(&call.name, call.args.len()).is_some()) {
            let given: Vec<Known<'a>> =
                call.args.iter().map(|arg| self.expression(arg, scope, nodes)).collect();
            let place = scope.place(at);
            let mut way = scope.way.clone();
            way.insert(
                0,
                Frame { what: name, source: place.file.to_string(), line: place.line, column: place.column },
            );
            let body = self.enter(source, &call.name, call.args.len(), given, way);
            nodes.push(part(PartKind::Function, vec![body], at, scope));
            return Known::NOTHING;
        }
        if module.is_empty() && self.word(call, at, scope, nodes) {
            return Known::NOTHING;
        }
        let declared = self.library.natives().deed(module, &call.name, call.args.len());
        let deed = declared.map(|declared| declared.0);
        // What is only put into a message is looked at by people and decides nothing.
        let tells = deed == Some(Deed::Message) || matches!(&*name, "note" | "log");
        self.told += usize::from(tells);
        let args: Vec<Value> = call.args.iter().map(|arg| self.escaped(arg, scope, nodes)).collect();
        self.told -= usize::from(tells);
        if module.is_empty() {
            match (&*name, args.as_slice()) {
                ("fail", _) => nodes.push(Node::Leave(Leave::Throw)),
                ("exit", _) => nodes.push(Node::Leave(Leave::Exit)),
                ("known", [value]) => return Known::Value(value.clone()),
                ("call", _) => nodes.push(Node::Unknown),
                _ if self.library.natives().is_word(&name) => {
                    nodes.push(self.node(name, deed, args, at, scope))
                }
                _ => {}
            }
        } else {
            let deed =
                declared.and_then(|(deed, options)| with_options(deed, args.last().filter(|_| options)));
            nodes.push(self.node(name, deed, args, at, scope));
        }
        Known::NOTHING
    }

    fn node(
        &self,
        name: String,
        deed: Option<Deed>,
        args: Vec<Value>,
        at: Position,
        scope: &Scope<'a>,
    ) -> Node {
        let (place, way) = (scope.place(at), scope.way.clone());
        Node::Call(Call { name, deed, args, place, way, only_told: self.told > 0 })
    }

    /// `curry(closure, a, b)`: how the parser writes a closure that takes variables along.
    fn capture(&mut self, call: &FnCallExpr, scope: &mut Scope<'a>, nodes: &mut Vec<Node>) -> Known<'a> {
        let mut args =
            call.args.iter().map(|arg| self.expression(arg, scope, nodes)).collect::<Vec<_>>().into_iter();
        match args.next() {
            Some(Known::Closure(closure)) => {
                let taken = closure.taken.iter().cloned().chain(args).collect();
                Known::Closure(Rc::new(Closure { taken, ..(*closure).clone() }))
            }
            _ => Known::NOTHING,
        }
    }

    fn operator(&mut self, call: &FnCallExpr, scope: &mut Scope<'a>, nodes: &mut Vec<Node>) -> Value {
        let args: Vec<Value> =
            call.args.iter().map(|arg| self.expression(arg, scope, nodes).value()).collect();
        match (&*call.name, args.as_slice()) {
            ("+", [left @ Value::Text(_), right]) | ("+", [left, right @ Value::Text(_)]) => {
                let text = left.shown().zip(right.shown()).map(|(left, right)| left + right.as_str());
                text.map_or(Value::Unknown, Value::Text)
            }
            _ => Value::Unknown,
        }
    }

    /// A control word that calls closures. Whether it is one.
    fn word(
        &mut self,
        call: &FnCallExpr,
        at: Position,
        scope: &mut Scope<'a>,
        nodes: &mut Vec<Node>,
    ) -> bool {
        let (kind, before, closure): (PartKind, &[Expr], &Expr) = match (&*call.name, &*call.args) {
            ("step", [name, body]) => (PartKind::Step { timed: false }, std::slice::from_ref(name), body),
            ("step", [name, options, body]) => {
                self.expression(name, scope, nodes);
                let options = self.expression(options, scope, nodes).value();
                let timed = options.may_be(&|options| *options.entry("timeout") != Value::Unit);
                (PartKind::Step { timed }, &[], body)
            }
            ("guard", [watched, body]) => (PartKind::Guard, std::slice::from_ref(watched), body),
            ("on_rollback", [body]) => (PartKind::OnRollback, &[], body),
            ("parallel", [branches, ..]) => {
                self.parallel(branches, at, scope, nodes);
                return true;
            }
            // It is asked between two effects, and performs none.
            ("invariant", [_, _]) => return true,
            _ => return false,
        };
        for expression in before {
            self.escaped(expression, scope, nodes);
        }
        let closure = self.expression(closure, scope, nodes);
        let body = self.branch(closure, scope);
        nodes.push(part(kind, vec![body], at, scope));
        true
    }

    /// What a control word calls.
    fn branch(&mut self, closure: Known<'a>, scope: &Scope<'a>) -> Vec<Node> {
        match closure {
            Known::Closure(closure) => self.inside(&closure, &[], scope),
            Known::Value(_) => vec![Node::Unknown],
        }
    }

    fn parallel(&mut self, given: &Expr, at: Position, scope: &mut Scope<'a>, nodes: &mut Vec<Node>) {
        let known = |value: &Dynamic| match value.read_lock::<FnPtr>() {
            Some(pointer) if pointer.is_anonymous() => {
                Known::Closure(Rc::new(Closure::of(&pointer, scope.source)))
            }
            _ => Known::NOTHING,
        };
        let branches: Vec<Known<'a>> = match given {
            Expr::Array(items, _) => items.iter().map(|item| self.expression(item, scope, nodes)).collect(),
            Expr::Map(map, _) => map.0.iter().map(|(_, item)| self.expression(item, scope, nodes)).collect(),
            // Closures that take nothing along are constants, and so is a list of them.
            Expr::DynamicConstant(value, _) if value.is_array() => value
                .read_lock::<rhai::Array>()
                .map_or_else(Vec::new, |items| items.iter().map(known).collect()),
            Expr::DynamicConstant(value, _) => {
                value.read_lock::<rhai::Map>().map_or_else(Vec::new, |map| map.values().map(known).collect())
            }
            _ => return nodes.push(Node::Unknown),
        };
        let bodies = branches.into_iter().map(|branch| self.branch(branch, scope)).collect();
        nodes.push(part(PartKind::Parallel, bodies, at, scope));
    }
}

fn part(kind: PartKind, bodies: Vec<Vec<Node>>, at: Position, scope: &Scope<'_>) -> Node {
    Node::Part(Part { kind, place: scope.place(at), way: scope.way.clone(), bodies })
}

/// What a call does, given its options. `None`: that depends on what only a run knows.
fn with_options(deed: Deed, options: Option<&Value>) -> Option<Deed> {
    if deed != Deed::Action {
        return Some(deed);
    }
    let Some(options) = options else { return Some(deed) };
    let says = |name: &str, value: &Value| options.is(&|options| options.entry(name) == value);
    let no = |name: &str| says(name, &Value::Unit) || says(name, &Value::Bool(false));
    let yes = |name: &str| says(name, &Value::Bool(true));
    match (yes("read_only"), yes("check")) {
        (true, true) => Some(Deed::Check),
        (true, false) => Some(Deed::Read),
        _ => no("read_only").then_some(Deed::Action),
    }
}
