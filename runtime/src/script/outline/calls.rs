//! Calls: of primitives, control words, script functions and operators.

use std::rc::Rc;

use rhai::{Dynamic, Expr, FnCallExpr, FnPtr, Position};

use super::{
    super::EffectClass,
    Call, Leave, Node, PartKind, Value,
    build::{Build, Closure, Known, Scope, part},
};
use crate::error::Frame;

impl<'a> Build<'a> {
    pub(super) fn call(
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
        let declared = self.functions.natives().class(module, &call.name, call.args.len());
        let class = declared.map(|declared| declared.0);
        // What is only put into a message is looked at by people and decides nothing.
        let tells = class == Some(EffectClass::Message) || matches!(&*name, "note" | "log");
        self.told += usize::from(tells);
        let args: Vec<Value> = call.args.iter().map(|arg| self.escaped(arg, scope, nodes)).collect();
        self.told -= usize::from(tells);
        if module.is_empty() {
            match (&*name, args.as_slice()) {
                ("fail", _) => nodes.push(Node::Leave(Leave::Throw)),
                ("exit", _) => nodes.push(Node::Leave(Leave::Exit)),
                ("known", [value]) => return Known::Value(value.clone()),
                ("call", _) => nodes.push(Node::Unknown),
                _ if class.is_some() || self.functions.natives().is_word(&name) => {
                    nodes.push(self.node(name, class, args, at, scope))
                }
                _ => {}
            }
        } else {
            let class =
                declared.and_then(|(class, options)| with_options(class, args.last().filter(|_| options)));
            nodes.push(self.node(name, class, args, at, scope));
        }
        Known::NOTHING
    }

    fn node(
        &self,
        name: String,
        class: Option<EffectClass>,
        args: Vec<Value>,
        at: Position,
        scope: &Scope<'a>,
    ) -> Node {
        let (place, way) = (scope.place(at), scope.way.clone());
        Node::Call(Call { name, class, args, place, way, only_told: self.told > 0 })
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
            ("+", [Value::Text(_), _] | [_, Value::Text(_)]) => Value::joined(&args),
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

/// What a call does, given its options. `None`: that depends on what only a run knows.
fn with_options(class: EffectClass, options: Option<&Value>) -> Option<EffectClass> {
    if class != EffectClass::Action {
        return Some(class);
    }
    let Some(options) = options else { return Some(class) };
    let says = |name: &str, value: &Value| options.is(&|options| options.entry(name) == value);
    let no = |name: &str| says(name, &Value::Unit) || says(name, &Value::Bool(false));
    let yes = |name: &str| says(name, &Value::Bool(true));
    match (yes("read_only"), yes("check")) {
        (true, true) => Some(EffectClass::Check),
        (true, false) => Some(EffectClass::Read),
        _ => no("read_only").then_some(EffectClass::Action),
    }
}
