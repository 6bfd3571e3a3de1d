//! The functions that scripts can call, as pages: for `docs` and for the reference in the book.

use std::{collections::BTreeMap, fmt::Write as _};

use contraflow_runtime::{
    schema::{OptionSchema, literal},
    script::{ArgumentDoc, FunctionDoc},
};

use crate::program::Program;

/// The page of the functions that need no module name.
pub(crate) const WORDS: &str = "control-words";

/// All functions of a program, by module.
pub(crate) struct Manual {
    modules: BTreeMap<String, Module>,
}

/// The functions of one module.
pub(crate) struct Module {
    /// What it is for. May be empty.
    pub(crate) about: String,
    /// In the order of their names, each in all its forms.
    pub(crate) functions: Vec<Function>,
}

/// One function in all its forms.
pub(crate) struct Function {
    /// What scripts call it: `traffic::shift`.
    pub(crate) path: String,
    forms: Vec<FunctionDoc>,
}

impl Manual {
    /// The functions of a program's libraries.
    pub(crate) fn of(program: &Program) -> Self {
        let runtime = program.runtime().build();
        let mut found: BTreeMap<String, Vec<FunctionDoc>> = BTreeMap::new();
        for function in runtime.functions().docs() {
            let module = if function.module.is_empty() { WORDS } else { &function.module };
            // Some forms only say what is wrong with a call.
            if function.doc.starts_with("Refuses ") {
                continue;
            }
            found.entry(module.to_owned()).or_default().push(function);
        }
        let module = |(name, mut functions): (String, Vec<FunctionDoc>)| {
            // Of several forms with as many parameters, the one that is described best comes first.
            functions.sort_by_key(|function| {
                (function.name.clone(), function.arity, std::cmp::Reverse(function.doc.len()))
            });
            let functions = functions.chunk_by(|a, b| a.name == b.name).map(Function::of).collect();
            let about = match &*name {
                WORDS => "Functions that structure a runbook.".to_owned(),
                name => runtime.functions().module_doc(name).to_owned(),
            };
            (name, Module { about, functions })
        };
        Self { modules: found.into_iter().map(module).collect() }
    }

    /// The modules with their names.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (&str, &Module)> {
        self.modules.iter().map(|(name, module)| (&**name, module))
    }

    /// One of the modules.
    pub(crate) fn module(&self, name: &str) -> Option<&Module> {
        self.modules.get(name)
    }

    /// All functions.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &Function> {
        self.modules.values().flat_map(|module| &module.functions)
    }
}

impl Function {
    fn of(forms: &[FunctionDoc]) -> Self {
        let path = match forms {
            [FunctionDoc { module, name, .. }, ..] if !module.is_empty() => format!("{module}::{name}"),
            [FunctionDoc { name, .. }, ..] => name.clone(),
            [] => String::new(),
        };
        Self { path, forms: forms.to_vec() }
    }

    /// How it is called, form by form.
    pub(crate) fn calls(&self) -> Vec<String> {
        let mut calls: Vec<String> = Vec::new();
        for form in &self.forms {
            let call = signature(form);
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
        calls
    }

    /// What it does, in a sentence.
    pub(crate) fn summary(&self) -> String {
        let doc = self.forms.first().map_or("", |form| &form.doc);
        let first = paragraphs(doc).into_iter().next().unwrap_or_default().replace('\n', " ");
        let sentence = first.split("; ").next().unwrap_or_default();
        let sentence = sentence.split_inclusive(". ").next().unwrap_or_default();
        sentence.trim().trim_end_matches(['.', ':']).to_owned()
    }

    /// What its options are, each argument once.
    pub(crate) fn options(&self) -> Vec<&ArgumentDoc> {
        let mut options: Vec<&ArgumentDoc> = Vec::new();
        for argument in self.forms.iter().flat_map(|form| &form.arguments) {
            if !argument.options.is_empty() && !options.contains(&argument) {
                options.push(argument);
            }
        }
        options
    }

    /// Its page in Markdown: how it is called, what it does, its options, examples.
    pub(crate) fn page(&self) -> String {
        let (mut text, mut examples): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for paragraph in self.forms.iter().flat_map(|form| paragraphs(&form.doc)) {
            let into = if paragraph.starts_with("```") { &mut examples } else { &mut text };
            // Forms of a function begin with what they have in common, which is said once.
            if !into.contains(&paragraph) {
                into.push(paragraph);
            }
        }
        let mut page = format!("## {}\n\n```text\n{}\n```\n", self.path, self.calls().join("\n"));
        for paragraph in text {
            let _ = write!(page, "\n{paragraph}");
        }
        for argument in self.options() {
            let _ = write!(page, "\nFields of `{}`:\n\n", argument.name);
            option_list(&argument.options, 0, &mut page);
        }
        for example in examples {
            let _ = write!(page, "\n{example}");
        }
        page
    }

    /// Its forms, as their authors describe them.
    #[cfg(test)]
    pub(crate) fn forms(&self) -> &[FunctionDoc] {
        &self.forms
    }
}

/// How a Rust type is called in scripts. Empty: any, or nothing to say. `None`: it has no name there.
pub(crate) fn type_name(rust: &str) -> Option<&'static str> {
    let plain = rust.trim().trim_start_matches('&').trim();
    let inner = plain
        .strip_prefix("ScriptResult")
        .and_then(|rest| rest.trim().strip_prefix('<')?.strip_suffix('>'))
        .unwrap_or(plain);
    Some(match inner.trim() {
        "str" | "String" | "ImmutableString" => "text",
        "i64" | "INT" => "number",
        "f64" | "FLOAT" => "fraction",
        "bool" => "bool",
        "Map" => "map",
        "Array" => "array",
        "FnPtr" => "closure",
        "Dynamic" | "()" | "ScriptResult" | "" => "",
        // The result of a primitive, by what it does.
        "Changes" | "Acts" | "Tells" | "Reads" | "Checks" | "Gives" => "",
        _ => return None,
    })
}

fn signature(function: &FunctionDoc) -> String {
    let params: Vec<String> = function
        .params
        .iter()
        .take(function.arity)
        .map(|param| {
            let (name, rust) = param.split_once(':').unwrap_or((param, ""));
            let name = name.trim();
            let declared = function.arguments.iter().find(|argument| argument.name == name);
            match (type_name(rust).unwrap_or_default(), declared) {
                ("", Some(argument)) => format!("{name}: {}", argument.kind),
                ("", None) => name.to_owned(),
                ("text", Some(argument)) => format!("{name}: {}", argument.kind),
                (told, _) => format!("{name}: {told}"),
            }
        })
        .collect();
    let module = if function.module.is_empty() { String::new() } else { format!("{}::", function.module) };
    let returns = match type_name(&function.returns).unwrap_or_default() {
        "" => String::new(),
        told => format!(" -> {told}"),
    };
    format!("{module}{}({}){returns}", function.name, params.join(", "))
}

/// The paragraphs of a text; a fenced block is one.
pub(crate) fn paragraphs(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        match found.last_mut() {
            Some(last) if fenced || !line.is_empty() => {
                last.push_str(line);
                last.push('\n');
            }
            _ => found.push(String::new()),
        }
    }
    found.retain(|paragraph| !paragraph.is_empty());
    found
}

/// Options as a list, each with the options inside it.
pub(crate) fn option_list(options: &[OptionSchema], depth: usize, into: &mut String) {
    let indent = "  ".repeat(depth);
    for option in options {
        let default = option.default_text().map(|text| format!(", default `{text}`")).unwrap_or_default();
        let required = if option.required { ", required" } else { "" };
        let doc = option.doc.replace("\n\n", " ");
        let _ = write!(into, "{indent}- `{}` ({}{default}{required}): {doc}", option.name, option.kind);
        let described = option.choices.iter().any(|choice| !choice.doc.is_empty());
        if !option.choices.is_empty() && !described {
            let values: Vec<String> =
                option.choices.iter().map(|choice| format!("`{}`", literal(&choice.value))).collect();
            let _ = write!(into, " One of {}.", values.join(", "));
        }
        into.push('\n');
        if described {
            for choice in &option.choices {
                let _ = writeln!(into, "{indent}  - `{}`: {}", literal(&choice.value), choice.doc);
            }
        }
        option_list(&option.options, depth + 1, into);
    }
}
