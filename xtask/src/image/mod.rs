//! `cargo xtask image` and `cargo xtask verify`: personalised firmware (docs/spec/08 §10).
//!
//! The firmware is built once; each device gets a copy with its token, its organization's key, its broker's authority and
//! its name in section `.baked`. The same inputs give the same bytes.

pub(crate) mod elf;
mod formats;
mod inputs;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use agent_core::baked::{Baked, BakedError, Flags, Record, SECTION, write};
use agent_core::x509pin::Pin;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::boards::{self, Board};
use formats::Format;

/// Inputs that cannot be used end with this code (docs/spec/08 §10.4).
pub(crate) const INPUT_INVALID: u8 = 2;
/// An image that is not what it should be.
pub(crate) const MISMATCH: u8 = 4;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The firmware, as the board's workspace builds it
    #[arg(long, value_name = "FILE")]
    elf: PathBuf,
    #[command(flatten)]
    given: Given,
    /// Name of the device
    #[arg(long, conflicts_with = "manifest")]
    identity: Option<String>,
    /// One image for each line `identity[,mac]`
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Folder for the images
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Files to write
    #[arg(long, value_delimiter = ',', default_value = "elf")]
    format: Vec<Format>,
    /// Board, for UF2, e.g. rp2040-w5500: a folder in agent-embedded/boards
    #[arg(long)]
    board: Option<String>,
    /// Write the 4 KiB of the section alone
    #[arg(long)]
    blob_only: bool,
    /// Use a provisioning token although a device would refuse it now, and an image that was made for another device
    #[arg(long)]
    force: bool,
    /// Unix seconds to write as the time of personalisation, for images that are made again [default: now]
    #[arg(long, value_name = "SECONDS")]
    built: Option<u64>,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// What a device is given.
#[derive(clap::Args)]
struct Given {
    /// The provisioning token
    #[arg(long, value_name = "FILE")]
    jwt: PathBuf,
    /// The organization's public key: 64 hex digits, or a file that holds them
    #[arg(long, value_name = "KEY")]
    issuer: String,
    /// Certificate of the authority of the broker's listener for devices; several while one replaces the other
    #[arg(long, value_name = "FILE", required = true)]
    ca: Vec<PathBuf>,
    /// Name in the broker's certificate, where the URL has another
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Broker to use instead of the token's, e.g. nats://192.0.2.1:4223; may be repeated
    #[arg(long)]
    url: Vec<String>,
    /// Obey callers whose token holds a policy when the delegated signer has signed: it has asked the policy
    #[arg(long)]
    trust_signer: bool,
    /// Serve requests before the device knows the time: until then neither their age nor their repetition is checked
    #[arg(long)]
    no_clock: bool,
    /// Time server for boards without a clock, a host with or without a port; otherwise the broker's host is asked
    #[arg(long, value_name = "HOST[:PORT]", value_parser = inputs::time_server)]
    time_server: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct VerifyOptions {
    /// The image: ELF or raw binary
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// The provisioning token that it should hold
    #[arg(long, value_name = "FILE")]
    jwt: Option<PathBuf>,
    /// The organization's key that it should hold
    #[arg(long, value_name = "KEY")]
    issuer: Option<String>,
    /// The authority that it should trust
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name that it should have
    #[arg(long)]
    identity: Option<String>,
}

/// An error with the exit code that it ends with.
#[derive(Debug)]
pub(crate) struct Coded(pub(crate) u8, anyhow::Error);

impl std::fmt::Display for Coded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.1)
    }
}

impl std::error::Error for Coded {}

fn coded<T>(code: u8, result: Result<T>) -> Result<T> {
    result.map_err(|error| Coded(code, error).into())
}

/// One image that was written.
#[derive(serde::Serialize)]
struct Made {
    identity: String,
    sha256: String,
    files: Vec<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    coded(INPUT_INVALID, make(options))
}

#[allow(clippy::disallowed_methods, reason = "a tool on the builder's machine has no other clock")]
fn make(options: &Options) -> Result<()> {
    let firmware =
        std::fs::read(&options.elf).with_context(|| format!("cannot read {}", options.elf.display()))?;
    let (offset, address, place) = place(&firmware).with_context(|| options.elf.display().to_string())?;
    match Baked::parse(place) {
        Err(BakedError::Blank) => {}
        Ok(before) if options.force || before.identity == options.identity.as_deref() => {}
        Ok(before) => bail!(
            "{} is personalised already, for {}: begin with the firmware as it was built, or use --force",
            options.elf.display(),
            before.identity.unwrap_or("no particular device")
        ),
        Err(error) => bail!("{}: {}", options.elf.display(), error.message()),
    }
    eprintln!("section .baked: offset {offset:#x} of the file, address {address:#010x}");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let issuer = inputs::issuer(&options.given.issuer)?;
    let token = inputs::provisioning_jwt(&options.given.jwt, issuer, i64::try_from(now)?, options.force)?;
    let given: Vec<&str> = options.given.url.iter().map(String::as_str).collect();
    findable(if given.is_empty() { vec![&token.urls] } else { given }, &options.given)?;
    let pins: Vec<Pin> =
        options.given.ca.iter().map(|path| inputs::authority(path)).collect::<Result<_>>()?;
    let names = match (&options.manifest, &options.identity) {
        (Some(manifest), _) => inputs::manifest(manifest)?.into_iter().map(Some).collect(),
        (None, Some(name)) => {
            inputs::identity(name)?;
            vec![Some(name.clone())]
        }
        (None, None) => vec![None],
    };
    let family = family(options)?;
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot create {}", options.out.display()))?;
    let progress = names.len() > 20 && std::io::stderr().is_terminal();
    let mut made = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let records = records(
            &options.given,
            &token.text,
            issuer,
            &pins,
            name.as_deref(),
            options.built.unwrap_or(now),
        );
        let mut section = [0; SECTION];
        write(&records, &mut section).map_err(|error| anyhow::anyhow!("{}", error.message()))?;
        let stem = name.clone().unwrap_or_else(|| "device".to_owned());
        made.push(image(options, &firmware, offset, &section, &stem, family)?);
        if progress {
            eprint!("\r{} of {}", number + 1, names.len());
        }
    }
    if progress {
        eprintln!();
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&made)?);
    } else {
        for image in &made {
            println!("{}  {}", image.sha256, image.identity);
        }
    }
    Ok(())
}

/// Whether a device finds one of its brokers. Says so where its firmware has to ask a name server for that.
fn findable(urls: Vec<&str>, given: &Given) -> Result<()> {
    let hosts = urls.join(",");
    let time = given.time_server.as_deref().filter(|server| inputs::host(server) == Some(inputs::Host::Name));
    let names = match inputs::find(urls.into_iter()) {
        None if hosts.is_empty() => time,
        None => bail!(
            "{hosts}: a device finds none of these: it takes nats://HOST:PORT, an IPv4 address or a name of at most 128 characters"
        ),
        Some(inputs::Host::Name) => Some(hosts.as_str()),
        Some(inputs::Host::Address) => time,
    };
    if let Some(names) = names {
        eprintln!(
            "xtask: note: {names}: the firmware has to ask a name server: that of all boards of real hardware does, that of \
             qemu-lm3s does not"
        );
    }
    Ok(())
}

/// The personalised section of firmware: its offset in the file, its address, and what it holds.
fn place(firmware: &[u8]) -> Result<(usize, u32, &[u8; SECTION])> {
    elf::check(firmware)?;
    let (offset, size, address) = elf::section(firmware, ".baked")?;
    ensure!(size == SECTION, "section .baked has {size} bytes instead of {SECTION}");
    let place = firmware.get(offset..).and_then(<[u8]>::first_chunk::<SECTION>).context("a short section")?;
    Ok((offset, address, place))
}

/// Whether images can be made of this firmware; returns the address of the section that they fill.
pub(crate) fn takes_images(firmware: &[u8], board: &Board) -> Result<u32> {
    let (_, address, place) = place(firmware)?;
    ensure!(matches!(Baked::parse(place), Err(BakedError::Blank)), "section .baked is not blank");
    let segments = elf::segments(firmware)?;
    if let Some(family) = board.uf2_family {
        formats::uf2(&segments, family)?;
    }
    Ok(address)
}

fn family(options: &Options) -> Result<u32> {
    if !options.format.contains(&Format::Uf2) {
        return Ok(0);
    }
    let takes_uf2: Vec<String> = boards::all()?
        .into_iter()
        .filter(|board| board.uf2_family.is_some())
        .map(|board| board.name)
        .collect();
    let takes_uf2 = takes_uf2.join(" and ");
    let Some(name) = options.board.as_deref() else { bail!("UF2 needs --board: {takes_uf2}") };
    boards::named(name)?.uf2_family.with_context(|| format!("board {name} takes no UF2: {takes_uf2} do"))
}

fn records<'r>(
    given: &'r Given,
    jwt: &'r str,
    issuer: [u8; 32],
    pins: &[Pin],
    name: Option<&'r str>,
    built: u64,
) -> Vec<Record<'r>> {
    let flags = Flags {
        require_clock: !given.no_clock,
        trust_signer_for_policies: given.trust_signer,
        ..Flags::default()
    };
    let mut records = vec![Record::ProvisioningJwt(jwt), Record::Issuer(issuer)];
    records.extend(pins.iter().map(|pin| Record::Pin(*pin)));
    records.extend(given.server_name.as_deref().map(Record::ServerName));
    records.extend(given.url.iter().map(|url| Record::Url(url)));
    records.extend(name.map(Record::Identity));
    records.extend(given.time_server.as_deref().map(Record::TimeServer));
    records.extend([Record::Built(built), Record::Flags(flags)]);
    records
}

fn image(
    options: &Options,
    firmware: &[u8],
    offset: usize,
    section: &[u8; SECTION],
    stem: &str,
    family: u32,
) -> Result<Made> {
    let mut files = Vec::new();
    let mut save = |ending: &str, bytes: &[u8]| -> Result<()> {
        let path = options.out.join(format!("{stem}.{ending}"));
        store(&path, bytes)?;
        let back = std::fs::read(&path)?;
        ensure!(back == bytes, "{} does not hold what was written", path.display());
        files.push(path);
        Ok(())
    };
    let mut copy = firmware.to_vec();
    if let Some(place) = copy.get_mut(offset..).and_then(<[u8]>::first_chunk_mut::<SECTION>) {
        *place = *section;
    }
    // what a device will read is read here first
    Baked::parse(section).map_err(|error| anyhow::anyhow!("{}", error.message()))?;
    if options.blob_only {
        save("baked", section)?;
    } else {
        let segments = elf::segments(&copy)?;
        for format in &options.format {
            match format {
                Format::Elf => save(format.ending(), &copy)?,
                Format::Bin => save(format.ending(), &formats::binary(&segments)?)?,
                Format::Hex => save(format.ending(), formats::intel_hex(&segments)?.as_bytes())?,
                Format::Uf2 => save(format.ending(), &formats::uf2(&segments, family)?)?,
            }
        }
    }
    let sha256 = Sha256::digest(section).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Made { identity: stem.to_owned(), sha256, files })
}

/// Whole or not at all, and for its owner only: the token in it lets anybody ask for enrolment.
fn store(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

pub(crate) fn verify(options: &VerifyOptions) -> Result<()> {
    let file =
        std::fs::read(&options.image).with_context(|| format!("cannot read {}", options.image.display()));
    let file = coded(INPUT_INVALID, file)?;
    coded(MISMATCH, compare(options, &file))
}

fn compare(options: &VerifyOptions, file: &[u8]) -> Result<()> {
    let section = if elf::check(file).is_ok() {
        let (offset, _, _) = elf::section(file, ".baked")?;
        file.get(offset..).and_then(|rest| rest.get(..SECTION)).context("section .baked is cut off")?
    } else {
        // a raw binary: the section stands on a border of 1 KiB and begins with its magic
        let blocks = (0..file.len()).step_by(1024).filter_map(|at| file.get(at..at + SECTION));
        blocks
            .into_iter()
            .find(|block| block.starts_with(b"CHOR"))
            .context("the image is not personalised")?
    };
    let baked = Baked::parse(section).map_err(|error| anyhow::anyhow!("{}", error.message()))?;
    if let Some(path) = &options.jwt {
        let jwt = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(baked.provisioning_jwt == jwt.trim(), "the image holds another provisioning token");
    }
    if let Some(text) = &options.issuer {
        ensure!(baked.issuers.contains(&inputs::issuer(text)?), "the image holds another organization's key");
    }
    if let Some(path) = &options.ca {
        ensure!(baked.pins.contains(&inputs::authority(path)?), "the image trusts another authority");
    }
    if let Some(name) = &options.identity {
        ensure!(
            baked.identity == Some(name),
            "the image is for {}",
            baked.identity.unwrap_or("no particular device")
        );
    }
    let digest: String = baked.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    println!(
        "baked {digest}: identity {}, {} issuers, {} pins, personalised at {}",
        baked.identity.unwrap_or("-"),
        baked.issuers.len(),
        baked.pins.len(),
        baked.built
    );
    Ok(())
}
