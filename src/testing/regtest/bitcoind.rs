//! A bitcoind of one's own instead of the simulated chain, for whoever has one: the same tests, judged by the real thing.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Address, Amount, Network, OutPoint, Transaction, TxOut, Txid};
use rand::RngCore;
use reqwest::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::channels::{PATIENCE, free_address};
use super::mining::{self, faucet};
use super::rules::COINBASE_MATURITY;

/// Between two looks at a node that tells nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Coins the faucet begins with; a payment takes one, and gives the change back with the next block.
const RIPE_AT_FIRST: u32 = 20;

/// Our name towards bitcoind; the password is made up each time.
const USER: &str = "coinop";

/// A running bitcoind on a private regtest, with a folder of its own. Killed when dropped.
pub struct Bitcoind {
    process: Child,
    client: Client,
    rpc: SocketAddr,
    password: String,
    _folder: TempDir,
}

impl std::fmt::Debug for Bitcoind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bitcoind").field("rpc", &self.rpc).finish_non_exhaustive()
    }
}

/// Ends with whoever started it, also when a test fails.
impl Drop for Bitcoind {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    result: Value,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Scan {
    unspents: Vec<Unspent>,
}

#[derive(Deserialize)]
struct Unspent {
    txid: Txid,
    vout: u32,
    #[serde(with = "bitcoin::amount::serde::as_btc")]
    amount: Amount,
    height: u32,
    /// Versions before 25 don't say.
    #[serde(default = "yes")]
    coinbase: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Verbose {
    hex: String,
}

impl Bitcoind {
    /// Starts `program` and mines until the faucet has money.
    ///
    /// # Errors
    /// When it can't be started.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub async fn start(program: &Path) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let rpc = free_address()?;
        let mut password = [0; 16];
        rand::thread_rng().fill_bytes(&mut password);
        let password = hex::encode(password);
        // The password goes by the file: the command line can be read by everybody on the machine.
        let settings = format!("regtest=1\nserver=1\nlisten=0\ntxindex=1\nrpcuser={USER}\nrpcpassword={password}\n");
        std::fs::write(folder.path().join("bitcoin.conf"), settings)?;
        let process = Command::new(program)
            .arg(format!("-datadir={}", folder.path().display()))
            .arg(format!("-rpcport={}", rpc.port()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let client = Client::builder().timeout(CALL_LIMIT).build().map_err(io::Error::other)?;
        let bitcoind = Self { process, client, rpc, password, _folder: folder };
        let awake = async {
            while bitcoind.try_call::<u32>("getblockcount", json!([])).await.is_err() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(PATIENCE, awake).await.expect("bitcoind should answer by now");
        bitcoind.mine(COINBASE_MATURITY + RIPE_AT_FIRST).await;
        Ok(bitcoind)
    }

    /// Where it is called, and with which name and password.
    pub(super) fn access(&self) -> (SocketAddr, &str, &str) {
        (self.rpc, USER, &self.password)
    }

    /// The height of the tip, in blocks.
    pub async fn height(&self) -> u32 {
        self.call("getblockcount", json!([])).await
    }

    /// Mines blocks, the first of which confirms everything that waits.
    pub async fn mine(&self, blocks: u32) {
        self.call::<Value>("generatetoaddress", json!([blocks, faucet_address()])).await;
    }

    /// Replaces the top `depth` blocks by one more empty ones. What was in them waits again.
    pub async fn reorg(&self, depth: u32) {
        let first: String = self.call("getblockhash", json!([self.height().await + 1 - depth])).await;
        self.call::<Value>("invalidateblock", json!([first])).await;
        for _ in 0..=depth {
            self.call::<Value>("generateblock", json!([faucet_address(), []])).await;
        }
    }

    /// Pays `amount` from the faucet. The next block confirms it.
    pub async fn fund(&self, address: &Address, amount: Amount) -> Txid {
        let tip = self.height().await;
        let descriptor = format!("raw({})", faucet().to_hex_string());
        let scan: Scan = self.call("scantxoutset", json!(["start", [descriptor]])).await;
        let ripe =
            scan.unspents.into_iter().filter(|coin| !coin.coinbase || coin.height + COINBASE_MATURITY <= tip + 1);
        let mut coins = Vec::new();
        // What the mempool spends is still in the set of the chain.
        for coin in ripe {
            let outpoint = OutPoint::new(coin.txid, coin.vout);
            if self.is_unspent(&outpoint).await {
                coins.push((outpoint, coin.amount));
            }
        }
        let payment = mining::faucet_payment(coins, TxOut { value: amount, script_pubkey: address.script_pubkey() });
        self.call("sendrawtransaction", json!([serialize_hex(&payment)])).await
    }

    /// What waits for a block.
    pub async fn mempool(&self) -> Vec<Transaction> {
        let txids: Vec<Txid> = self.call("getrawmempool", json!([])).await;
        let mut waiting = Vec::new();
        for txid in txids {
            waiting.extend(self.transaction(&txid).await);
        }
        waiting
    }

    /// Whether an output is there and nothing spends it, neither a block nor what waits for one.
    pub async fn is_unspent(&self, output: &OutPoint) -> bool {
        self.call::<Option<Value>>("gettxout", json!([output.txid, output.vout])).await.is_some()
    }

    async fn transaction(&self, txid: &Txid) -> Option<Transaction> {
        let found: Verbose = self.try_call("getrawtransaction", json!([txid, true])).await.ok()?;
        Some(deserialize_hex(&found.hex).expect("bitcoind serializes transactions"))
    }

    /// Waits until `look` finds what it looks for in the mempool. As long as it takes: the caller sets the limit.
    pub async fn until_waiting<T>(&self, look: impl Fn(&[Transaction]) -> Option<T>) -> T {
        loop {
            if let Some(found) = look(&self.mempool().await) {
                return found;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, parameters: Value) -> T {
        match self.try_call(method, parameters).await {
            Ok(result) => result,
            Err(why) => panic!("bitcoind refuses {method}: {why}"),
        }
    }

    async fn try_call<T: DeserializeOwned>(&self, method: &str, parameters: Value) -> Result<T, String> {
        let body = json!({ "jsonrpc": "1.0", "id": USER, "method": method, "params": parameters }).to_string();
        let request =
            self.client.post(format!("http://{}/", self.rpc)).basic_auth(USER, Some(&self.password)).body(body);
        let reply = request.send().await.map_err(|error| error.to_string())?;
        let text = reply.text().await.map_err(|error| error.to_string())?;
        let reply: Reply = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match reply.error {
            Some(error) => Err(error.to_string()),
            None => serde_json::from_value(reply.result).map_err(|error| error.to_string()),
        }
    }
}

fn faucet_address() -> Address {
    Address::from_script(&faucet(), Network::Regtest).expect("a P2WSH script has an address")
}
