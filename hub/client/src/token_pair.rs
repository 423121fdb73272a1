//! Token and seed in two files that are replaced as one: whoever is killed in between leaves the old pair or the new one
//! (docs/spec/10 §7, T-030).
//!
//! Two renames cannot be one step. So copies of the old pair stand beside the files (`.bak`) until the new pair is
//! complete, the old token goes before the new seed comes, and a reader that finds half a pair uses the copies.

use std::path::{Path, PathBuf};

use choria_host::private_file;
use choria_token::{Seed, peek_client};

use crate::ClientError;

/// Replaces both files. When that fails, the old pair is back.
pub(crate) fn replace(
    token_file: &Path,
    seed_file: &Path,
    token: &str,
    seed: &Seed,
) -> Result<(), ClientError> {
    if let Some((old_token, old_seed)) = interrupted(token_file, seed_file) {
        // the copies must not be overwritten with halves
        copy(&old_seed, seed_file)?;
        copy(&old_token, token_file)?;
    }
    // both are complete on disk before either takes its name
    let new_seed =
        private_file::stage(seed_file, seed.to_hex().as_bytes(), 0o600).map_err(failed(seed_file))?;
    let new_token = private_file::stage(token_file, token.as_bytes(), 0o600).map_err(failed(token_file))?;
    let old_seed = Copy::of(seed_file)?;
    let old_token = Copy::of(token_file).inspect_err(|_| old_seed.discard())?;
    let committed = private_file::remove(token_file)
        .map_err(failed(token_file))
        .and_then(|()| new_seed.commit().map_err(failed(seed_file)))
        .and_then(|()| new_token.commit().map_err(failed(token_file)));
    if committed.is_err() {
        old_seed.restore();
        old_token.restore();
    }
    old_token.discard();
    old_seed.discard();
    committed
}

/// The copies of the old token and seed, when somebody was killed while replacing them: the files do not fit together,
/// the copies do.
pub(crate) fn interrupted(token_file: &Path, seed_file: &Path) -> Option<(PathBuf, PathBuf)> {
    let (old_token, old_seed) = (beside(token_file), beside(seed_file));
    (fit(&old_token, &old_seed) && !fit(token_file, seed_file)).then_some((old_token, old_seed))
}

fn fit(token_file: &Path, seed_file: &Path) -> bool {
    if !token_file.is_file() || !seed_file.is_file() {
        return false;
    }
    let Ok(token) = private_file::read_secret(token_file) else { return false };
    let Ok(seed) = Seed::load(seed_file) else { return false };
    let Ok(claims) = peek_client(token.expose()) else { return false };
    let key = claims.claims().standard.public_key.as_deref().map(str::to_ascii_lowercase);
    key == Some(seed.public().to_hex())
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".bak");
    PathBuf::from(name)
}

fn failed(path: &Path) -> impl FnOnce(private_file::PrivateFileError) -> ClientError + use<> {
    let path = path.to_owned();
    move |error| ClientError::Write { path, reason: error.to_string() }
}

fn copy(from: &Path, to: &Path) -> Result<(), ClientError> {
    let content = private_file::read_secret(from)
        .map_err(|error| ClientError::Read { path: from.to_owned(), reason: error.to_string() })?;
    private_file::write_private(to, content.expose().as_bytes()).map_err(failed(to))
}

/// A file's previous content, beside it.
struct Copy {
    file: PathBuf,
    kept: Option<PathBuf>,
}

impl Copy {
    fn of(file: &Path) -> Result<Self, ClientError> {
        let kept = beside(file);
        match std::fs::read(file) {
            Ok(content) => {
                private_file::write_private(&kept, &content).map_err(failed(&kept))?;
                Ok(Self { file: file.to_owned(), kept: Some(kept) })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self { file: file.to_owned(), kept: None })
            }
            Err(error) => Err(ClientError::Read { path: file.to_owned(), reason: error.to_string() }),
        }
    }

    fn restore(&self) {
        let restored = match &self.kept {
            Some(kept) => copy(kept, &self.file),
            None => private_file::remove(&self.file).map_err(failed(&self.file)),
        };
        if let Err(error) = restored {
            tracing::error!(file = %self.file.display(), "the previous content could not be put back: {error}");
        }
    }

    fn discard(&self) {
        if let Some(kept) = &self.kept
            && let Err(error) = private_file::remove(kept)
        {
            tracing::warn!(file = %kept.display(), "a copy of the previous content could not be removed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use choria_token::{ClientClaims, Issuer};

    fn pair(org: u8) -> (String, Seed) {
        let seed = Seed::generate().unwrap();
        let claims = ClientClaims::new("up=alice", &seed.public());
        let hour = std::time::Duration::from_secs(3600);
        let issuer = Issuer::Org(Seed::from_bytes(&[org; 32]));
        (issuer.issue_client(claims, hour, choria_host::clock::unix_seconds()).unwrap(), seed)
    }

    #[test]
    fn half_a_pair_is_noticed_and_the_copies_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let (token_file, seed_file) = (folder.path().join("token"), folder.path().join("seed"));
        let (old_token, old_seed) = pair(1);
        replace(&token_file, &seed_file, &old_token, &old_seed).unwrap();
        assert!(interrupted(&token_file, &seed_file).is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "copies are left");

        // as if killed once the new seed was there
        let (new_token, new_seed) = pair(2);
        Copy::of(&seed_file).unwrap();
        Copy::of(&token_file).unwrap();
        private_file::remove(&token_file).unwrap();
        private_file::write_private(&seed_file, new_seed.to_hex().as_bytes()).unwrap();
        let (token, seed) = interrupted(&token_file, &seed_file).unwrap();
        assert_eq!(std::fs::read_to_string(token).unwrap(), old_token);
        assert_eq!(Seed::load(&seed).unwrap().public(), old_seed.public());

        replace(&token_file, &seed_file, &new_token, &new_seed).unwrap();
        assert!(fit(&token_file, &seed_file) && interrupted(&token_file, &seed_file).is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "copies are left");
    }
}
