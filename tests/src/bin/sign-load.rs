//! Has requests signed by the AAA service over the network, many at a time, and prints how many a second:
//! `sign-load CONFIG COUNT PARALLEL`. Used by `cargo xtask bench`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // its one result

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use choria_client::{ClientConfig, ConnectOptions, Connection, SignerMode};
use choria_protocol::Filter;
use futures_util::{StreamExt, TryStreamExt, stream};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, config, count, parallel] = arguments.as_slice() else {
        bail!("usage: sign-load CONFIG COUNT PARALLEL");
    };
    let (count, parallel): (u32, usize) = (count.parse()?, parallel.parse()?);
    let settings = ClientConfig::discover_file(Some(Path::new(config)))?;
    let config = ClientConfig::from_settings(settings)?;
    if config.signer == SignerMode::OwnSeed {
        bail!("this configuration asks no signer: there is nothing to measure");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let options = ConnectOptions { timeout: Some(Duration::from_secs(10)), ..ConnectOptions::default() };
        let connection = Connection::connect(&config, options).await?;
        let sign = || async {
            let body = br#"{"agent":"rpcutil","action":"ping","data":{}}"#;
            let request = connection.new_request("rpcutil", body.to_vec(), Filter::default(), 60)?;
            connection.sign(&request).await?.signer.context("the signer did not sign")
        };
        sign().await?;
        let started = Instant::now();
        stream::iter(0..count)
            .map(Ok::<_, anyhow::Error>)
            .try_for_each_concurrent(parallel, |_| async { sign().await.map(drop) })
            .await?;
        println!("{:.0}", f64::from(count) / started.elapsed().as_secs_f64());
        Ok(())
    })
}
