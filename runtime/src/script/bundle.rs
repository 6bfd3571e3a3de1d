//! Reading a runbook with all it imports.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use rhai::{AST, ASTNode, Expr, Stmt};

use super::syntax;
use crate::{
    bundle::Bundle,
    error::{RunError, codes},
};

/// Largest script file. Compiling is quadratic in the number of variables of one script and cannot be interrupted.
pub const MAX_SOURCE: u64 = 256 * 1024;

/// Most files in one bundle.
const MAX_FILES: usize = 256;

impl Bundle {
    /// Reads a runbook and, transitively, all it imports. Nothing is executed.
    ///
    /// Import paths are literal, made of `[A-Za-z0-9_-]` parts joined by `/`, and taken from the runbook's folder; what they
    /// name must lie in that folder, also when symbolic links are followed.
    ///
    /// # Errors
    /// A file that cannot be read, is too large, is not UTF-8 or does not parse; an import that is not allowed; a cycle.
    pub fn load(path: &Path) -> Result<Self, RunError> {
        let main = path.file_name().map(|name| name.to_string_lossy().into_owned()).ok_or_else(|| {
            RunError::new(codes::IMPORT, format!("{} is not a script file", path.display()))
        })?;
        let text = read(path)?;
        let root = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = root
            .canonicalize()
            .map_err(|e| RunError::new(codes::IMPORT, format!("{}: {e}", root.display())))?;
        let mut bundle = Self::single(main.clone(), text);
        let mut stack = vec![main.clone()];
        bundle.add_imports(&root, &main, &mut stack)?;
        Ok(bundle)
    }

    fn add_imports(&mut self, root: &Path, file: &str, stack: &mut Vec<String>) -> Result<(), RunError> {
        let text = self.files.get(file).map(String::as_str).unwrap_or_default();
        let ast = syntax::parse(text, file)?;
        for import in imports(&ast, file)? {
            let name = format!("{}.rhai", import.path);
            let at = |error: RunError| error.at("import", file, import.line, import.column);
            if stack.contains(&name) {
                let way = stack.iter().map(String::as_str).chain([&*name]).collect::<Vec<_>>().join(" -> ");
                return Err(at(RunError::new(
                    codes::IMPORT,
                    format!("scripts import each other in a cycle: {way}"),
                )));
            }
            if self.files.contains_key(&name) {
                continue;
            }
            if self.files.len() >= MAX_FILES {
                return Err(at(RunError::new(codes::IMPORT, format!("more than {MAX_FILES} files"))));
            }
            let found = locate(root, &import.path).map_err(at)?;
            self.files.insert(name.clone(), read(&found).map_err(at)?);
            stack.push(name.clone());
            self.add_imports(root, &name, stack)?;
            stack.pop();
        }
        Ok(())
    }
}

/// One `import "path" as name;`.
pub(crate) struct Import {
    pub(crate) path: String,
    pub(crate) alias: String,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// The imports of a script, each with a path that is allowed.
pub(crate) fn imports(ast: &AST, file: &str) -> Result<Vec<Import>, RunError> {
    let mut found = Vec::new();
    let mut wrong = None;
    ast.walk(&mut |nodes: &[ASTNode<'_>]| {
        if let Some(ASTNode::Stmt(Stmt::Import(import, position))) = nodes.last() {
            let (line, column) = (position.line().unwrap_or(0), position.position().unwrap_or(0));
            let (path, alias) = &**import;
            match path {
                Expr::StringConstant(path, _) if is_plain(path) => {
                    found.push(Import {
                        path: path.to_string(),
                        alias: alias.name.to_string(),
                        line,
                        column,
                    });
                }
                Expr::StringConstant(path, _) => {
                    wrong = Some(
                        RunError::new(codes::IMPORT, format!("\"{path}\" cannot be imported"))
                            .at("import", file, line, column)
                            .hint(
                                "use a path below the runbook's folder without .rhai, such as \"lib/health\"",
                            ),
                    );
                }
                _ => {
                    wrong = Some(
                        RunError::new(codes::IMPORT, "the path of an import must be literal text")
                            .at("import", file, line, column)
                            .hint("all files of a runbook must be known before it runs"),
                    );
                }
            }
        }
        wrong.is_none()
    });
    wrong.map_or(Ok(found), Err)
}

fn is_plain(path: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    path.split('/').all(part)
}

fn locate(root: &Path, import: &str) -> Result<PathBuf, RunError> {
    let wanted = root.join(format!("{import}.rhai"));
    let found = wanted.canonicalize().map_err(|e| {
        let what = if e.kind() == std::io::ErrorKind::NotFound {
            "no such script".to_owned()
        } else {
            e.to_string()
        };
        RunError::new(codes::IMPORT, format!("\"{import}\" cannot be imported: {what}"))
            .hint(format!("looked for {import}.rhai in the runbook's folder"))
    })?;
    if found.starts_with(root) {
        Ok(found)
    } else {
        Err(RunError::new(codes::IMPORT, format!("\"{import}\" leads out of the runbook's folder")))
    }
}

fn read(path: &Path) -> Result<String, RunError> {
    let shown = path.display();
    let fail = |what: String| RunError::new(codes::IMPORT, format!("cannot read {shown}: {what}"));
    let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
    let meta = file.metadata().map_err(|e| fail(e.to_string()))?;
    if meta.is_dir() {
        return Err(fail("it is a folder".into()).hint("use the .rhai file in it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SOURCE + 1).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
    if bytes.len() as u64 > MAX_SOURCE {
        return Err(
            fail(format!("it is larger than {} KiB", MAX_SOURCE / 1024)).hint("split it with `import`")
        );
    }
    contraflow_provider::text::decode(bytes).map_err(|e| fail(e.to_string()))
}
