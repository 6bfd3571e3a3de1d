//! Secrets in files, as orchestrators and secret agents mount them.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use contraflow_provider::{
    config::{BadSetting, Building},
    registry::Factory,
};
use contraflow_runtime::{
    error::codes,
    provider::{Provider, ProviderError},
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use super::{Secrets, remark, usable};

/// A secret is small; a larger file is a mistake.
const LARGEST: u64 = 1 << 20;

/// Settings of `provider = "file"`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Path of the file, taken from the folder of the configuration.
    pub path: String,
}

/// A secret in a file of its own. One newline at the end does not belong to it. It is read each time, so a file that is
/// replaced (a rotated secret) is seen.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
}

impl File {
    /// The secret in that file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned() }
    }

    fn failed(&self, what: impl std::fmt::Display) -> ProviderError {
        ProviderError::terminal(codes::SECRET, format!("{}: {what}", self.path.display()))
    }

    async fn look(&self) -> Result<Zeroizing<String>, ProviderError> {
        let file = tokio::fs::File::open(&self.path)
            .await
            .map_err(|e| self.failed(e).hint("the path starts at the folder of contraflow.toml"))?;
        let size = file.metadata().await.map_err(|e| self.failed(e))?.len();
        if size > LARGEST {
            return Err(self.failed(format!("{size} bytes is too large for a secret")));
        }
        // Room for all of it at once: a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1));
        file.take(LARGEST).read_to_end(&mut bytes).await.map_err(|e| self.failed(e))?;
        if bytes.ends_with(b"\n") {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        let bytes = contraflow_provider::text::bytes_without_mark(&bytes);
        let text = std::str::from_utf8(bytes).map_err(|_| self.failed("not UTF-8 text"))?;
        usable(Zeroizing::new(text.to_owned()), &self.path.display().to_string())
    }
}

impl Factory for File {
    type Capability = dyn Secrets;
    type Settings = Settings;

    const KIND: &'static str = "file";
    const ABOUT: &'static str =
        "A secret in a file, as orchestrators and secret agents mount it. A replaced file is read again.";
    const EXAMPLE: &'static str = r#"[env.production.secrets.deploy-token]
provider = "file"
path = "/run/secrets/deploy-token"
"#;

    fn build(at: &Building<'_>, settings: Settings) -> Result<Arc<dyn Secrets>, BadSetting> {
        Ok(Arc::new(Self::new(at.path(&settings.path))))
    }
}

#[async_trait]
impl Provider for File {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        let value = self.look().await?;
        let mode =
            tokio::fs::metadata(&self.path).await.map_err(|e| self.failed(e))?.permissions().mode() & 0o777;
        let others = if mode & 0o077 == 0 {
            String::new()
        } else {
            format!(
                ", but other users can read or change it (mode {mode:04o}): chmod 600 {}",
                self.path.display()
            )
        };
        Ok(format!("readable{others}{}", remark(&value)))
    }
}

#[async_trait]
impl Secrets for File {
    async fn value(&self) -> Result<Zeroizing<String>, ProviderError> {
        self.look().await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn one_newline_at_the_end_does_not_belong_to_the_secret() {
        let folder = tempfile::tempdir().expect("folder");
        for (written, read) in [("tok\n", "tok"), ("tok", "tok"), ("tok\r\n", "tok"), ("a\nb\n\n", "a\nb\n")]
        {
            let path = folder.path().join("token");
            fs::write(&path, format!("\u{feff}{written}")).expect("written");
            assert_eq!(File::new(&path).value().await.expect("read").as_str(), read);
            fs::write(&path, written).expect("written");
            assert_eq!(File::new(&path).value().await.expect("read").as_str(), read);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_is_no_secret_is_refused_without_showing_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        let missing = File::new(&path).value().await.expect_err("no file");
        assert!(missing.message.contains("No such file"), "{missing}");
        fs::write(&path, "\n").expect("written");
        assert!(File::new(&path).value().await.expect_err("empty").message.ends_with("is empty"));
        fs::write(&path, b"abc\xff").expect("written");
        assert!(File::new(&path).value().await.expect_err("no text").message.ends_with("not UTF-8 text"));
        fs::write(&path, vec![b'x'; 2 << 20]).expect("written");
        assert!(
            File::new(&path).value().await.expect_err("large").message.contains("too large for a secret")
        );
    }

    /// A file of its own.
    struct Kept(File);

    #[async_trait]
    impl contraflow_provider::contract::secrets::Fixture for Kept {
        fn secret(&self) -> &dyn Secrets {
            &self.0
        }

        async fn keep(&self, value: Option<&str>) {
            match value {
                Some(value) => fs::write(&self.0.path, format!("{value}\n")).expect("written"),
                None => fs::remove_file(&self.0.path).expect("removed"),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_keeps_the_contract_of_secrets() {
        let folder = tempfile::tempdir().expect("folder");
        contraflow_provider::contract::secrets::holds(&Kept(File::new(folder.path().join("token")))).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_check_says_who_else_may_read_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        fs::write(&path, "hunter2\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
        assert_eq!(File::new(&path).check().await, Ok("readable".to_owned()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
        let said = File::new(&path).check().await.expect("readable");
        assert!(
            said.contains("mode 0644") && said.contains("chmod 600") && !said.contains("hunter2"),
            "{said}"
        );
    }
}
