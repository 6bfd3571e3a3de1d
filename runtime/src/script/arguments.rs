//! What functions take as arguments, and the check of arguments that are written out in a script.
//!
//! A module declares the types that decode its arguments, next to its functions. Declarations are kept in the module itself, as
//! variables under names that no script can write, so that whoever has a module has them too.

use rhai::{AST, ASTNode, Dynamic, Expr, FnCallExpr, Module, Position, Stmt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    convert::{self, Mistake, Refusal, Step},
    engine::Natives,
    syntax::place,
};
use crate::{
    error::RunError,
    schema::{self, JsonSchema, Schema},
};

/// What a function takes as one of its arguments.
#[derive(Clone, Copy)]
pub struct Argument {
    schema: fn() -> Schema,
    decode: fn(Value, &str) -> Result<(), Refusal>,
    form: Form,
}

/// How an argument is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As a whole.
    Whole,
    /// A map of options, or an array of such: every option by itself.
    Options,
}

impl std::fmt::Debug for Argument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Argument").field("form", &self.form).finish_non_exhaustive()
    }
}

/// Declares that `function` decodes its map `options` into a `T`.
///
/// Options that are written out in a script are then checked before it runs, and the reference lists them.
pub fn options<T: JsonSchema + DeserializeOwned>(module: &mut Module, function: &str) {
    declare::<T>(module, function, "options", Form::Options);
}

/// Declares that `function` decodes its argument `name` into a `T`.
pub fn argument<T: JsonSchema + DeserializeOwned>(module: &mut Module, function: &str, name: &str) {
    declare::<T>(module, function, name, Form::Whole);
}

/// Declares that `function` decodes its argument `name`, a map of options or an array of such maps, into `T`s.
pub fn each<T: JsonSchema + DeserializeOwned>(module: &mut Module, function: &str, name: &str) {
    declare::<T>(module, function, name, Form::Options);
}

fn declare<T: JsonSchema + DeserializeOwned>(module: &mut Module, function: &str, name: &str, form: Form) {
    let decode = |value, name: &str| convert::try_decode::<T>(value, name).map(drop);
    let argument = Argument { schema: schema::of::<T>, decode, form };
    module.set_var(variable(function, name), Dynamic::from(argument));
}

fn variable(function: &str, argument: &str) -> String {
    format!("{function}({argument})")
}

impl Argument {
    /// What one of `modules` declares about an argument.
    pub(super) fn of<'a>(
        mut modules: impl Iterator<Item = &'a Module>,
        function: &str,
        name: &str,
    ) -> Option<Self> {
        let variable = variable(function, name);
        modules.find_map(|module| module.get_var_value::<Self>(&variable))
    }

    pub(super) fn schema(&self) -> Schema {
        (self.schema)()
    }

    /// What is wrong with an argument that is written out, with the place of each.
    fn wrong(&self, name: &str, given: &Literal) -> Vec<(RunError, String, Position)> {
        match self.form {
            Form::Whole => self.wrong_whole(name, given).into_iter().collect(),
            Form::Options if !given.items.is_empty() => {
                given.items.iter().flat_map(|(_, item)| self.wrong_options(item)).collect()
            }
            Form::Options => self.wrong_options(given),
        }
    }

    fn wrong_whole(&self, name: &str, given: &Literal) -> Option<(RunError, String, Position)> {
        let refusal = given.whole.then(|| (self.decode)(given.value.clone(), name).err())??;
        Some(given.placed(refusal))
    }

    /// Each option by itself, so that all mistakes are told and those can be found that stand beside values nobody knows yet.
    fn wrong_options(&self, given: &Literal) -> Vec<(RunError, String, Position)> {
        if given.whole && (self.decode)(given.value.clone(), "").is_ok() {
            return Vec::new();
        }
        let wrong: Vec<_> = given
            .fields
            .iter()
            .filter_map(|(key, _, field)| {
                let alone = Value::Object(std::iter::once((key.clone(), field.value.clone())).collect());
                let refusal = (self.decode)(alone, "").err()?;
                // Where something was left out because nobody knows it, only the names of the rest can be judged.
                let certain = match refusal.mistake {
                    Mistake::UnknownKey => true,
                    Mistake::Missing => field.whole && !refusal.path.is_empty(),
                    Mistake::Value => field.whole,
                };
                certain.then(|| given.placed(refusal))
            })
            .collect();
        if wrong.is_empty() { self.wrong_whole("", given).into_iter().collect() } else { wrong }
    }
}

/// A value that is written out in a script, as far as it is.
struct Literal {
    position: Position,
    /// Without what is not written out.
    value: Value,
    /// Whether all of it is written out.
    whole: bool,
    /// Of a map: key, its place, value. Entries that are not written out are there as well, as `()`.
    fields: Vec<(String, Position, Literal)>,
    /// Of an array: what is written out.
    items: Vec<(usize, Literal)>,
}

impl Literal {
    fn new(position: Position, value: Value) -> Self {
        Self { position, value, whole: true, fields: Vec::new(), items: Vec::new() }
    }

    fn of(expression: &Expr) -> Option<Self> {
        match expression {
            Expr::Array(items, position) => {
                let given: Vec<(usize, Self)> =
                    items.iter().enumerate().filter_map(|(i, item)| Some((i, Self::of(item)?))).collect();
                let value = Value::Array(given.iter().map(|(_, item)| item.value.clone()).collect());
                let whole = given.len() == items.len() && given.iter().all(|(_, item)| item.whole);
                Some(Self { whole, items: given, ..Self::new(*position, value) })
            }
            Expr::Map(map, position) => {
                let fields: Vec<(String, Position, Self)> = map
                    .0
                    .iter()
                    .map(|(key, item)| {
                        let hole = || Self { whole: false, ..Self::new(item.position(), Value::Null) };
                        (key.name.to_string(), key.pos, Self::of(item).unwrap_or_else(hole))
                    })
                    .collect();
                let whole = fields.iter().all(|(_, _, field)| field.whole);
                let written = fields.iter().filter(|(_, _, field)| field.whole || !field.value.is_null());
                let entries = written.map(|(key, _, field)| (key.clone(), field.value.clone()));
                let value = Value::Object(entries.collect());
                Some(Self { whole, fields, ..Self::new(*position, value) })
            }
            Expr::FnCall(..) | Expr::MethodCall(..) | Expr::Variable(..) => None,
            constant => {
                // A closure has no such form: whether one can be used here is found when the function is called.
                let value = constant.get_literal_value(None)?;
                Some(Self::new(constant.position(), convert::to_json(&value).ok()?))
            }
        }
    }

    /// A refusal of this value, with what it is about and where that stands.
    fn placed(&self, refusal: Refusal) -> (RunError, String, Position) {
        let mut here = self;
        let (mut what, mut position) = (String::new(), self.position);
        for step in &refusal.path {
            let next = match step {
                Step::Key(key) => {
                    here.fields.iter().find(|(name, ..)| name == key).map(|(name, at, value)| {
                        what.clone_from(name);
                        position = if refusal.mistake == Mistake::UnknownKey { *at } else { value.position };
                        value
                    })
                }
                Step::Item(index) => here.items.get(*index).map(|(_, value)| {
                    position = value.position;
                    value
                }),
            };
            let Some(next) = next else { break };
            here = next;
        }
        if refusal.mistake != Mistake::UnknownKey {
            what = match &here.value {
                Value::String(text) => format!("\"{text}\""),
                Value::Number(_) | Value::Bool(_) => here.value.to_string(),
                _ => String::new(),
            };
        }
        (refusal.error, what, position)
    }
}

/// What is wrong with arguments that are written out in a script: everywhere, also where a run would never come.
pub(super) fn literals(ast: &AST, natives: &Natives, file: &str) -> Vec<RunError> {
    let mut errors: Vec<RunError> = Vec::new();
    ast.walk(&mut |nodes: &[ASTNode<'_>]| {
        if let Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _))) =
            nodes.last()
        {
            for (error, what, position) in in_call(call, natives) {
                let (line, column) = place(position);
                let error = error.at(what, file, line, column);
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
        }
        true
    });
    errors
}

fn in_call(call: &FnCallExpr, natives: &Natives) -> Vec<(RunError, String, Position)> {
    if call.is_operator_call() {
        return Vec::new();
    }
    let module = call.namespace.to_string();
    let declared = natives.arguments(module.trim_end_matches("::"), &call.name, call.args.len());
    let given = declared
        .iter()
        .filter_map(|(place, name, argument)| Some((name, argument, Literal::of(call.args.get(*place)?)?)));
    given.flat_map(|(name, argument, given)| argument.wrong(name, &given)).collect()
}
