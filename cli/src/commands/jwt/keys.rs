//! `choria jwt keys`: a new Ed25519 key pair.

use std::path::PathBuf;

use choria_host::private_file;
use choria_token::Seed;
use clap::Args;

use crate::failure::{Doing, Failure};
use crate::output;
use crate::output::prompt::Prompts;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// File for the seed: 64 hex digits, readable by its owner only
    seed: PathBuf,
    /// File for the public key
    public: Option<PathBuf>,
    /// Overwrite an existing seed without asking
    #[arg(long, short)]
    force: bool,
    /// Only print the public key of an existing seed
    #[arg(long)]
    show_public: bool,
    /// Make the folders that the files need
    #[arg(long)]
    parents: bool,
}

pub(crate) fn run(prompts: Prompts, options: &Options) -> Result<u8, Failure> {
    let name = options.seed.display();
    if options.show_public && options.seed.exists() {
        let seed = Seed::load(&options.seed).doing(|| format!("cannot read the seed {name}"))?;
        output::print(&format!("Public Key: {}\n", seed.public().to_hex()));
        return Ok(0);
    }
    if options.seed.exists()
        && !options.force
        && !prompts.confirm(&format!("Really overwrite {name}"), "--force")?
    {
        output::print("Skipping\n");
        return Ok(0);
    }
    let files = [Some(&options.seed), options.public.as_ref()];
    if options.parents {
        for folder in files.iter().flatten().filter_map(|path| path.parent()) {
            std::fs::create_dir_all(folder)
                .doing(|| format!("cannot create the folder {}", folder.display()))?;
        }
    }
    let seed = Seed::generate().doing(|| String::from("cannot make a key"))?;
    let public = seed.public().to_hex();
    private_file::write_private(&options.seed, seed.to_hex().as_bytes())
        .doing(|| format!("cannot save the seed in {name}"))?;
    if let Some(path) = &options.public {
        private_file::write_private(path, public.as_bytes())
            .doing(|| format!("cannot save the public key in {}", path.display()))?;
    }
    output::print(&format!("Public Key: {public}\n\nEd25519 seed saved in {name}\n"));
    Ok(0)
}
