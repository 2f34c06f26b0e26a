// Starts stripe-stateful-mock on 127.0.0.1. Arguments: the folder with node_modules, and the port. Ends with its standard input.
const path = require("path");
const { createExpressApp } = require(path.join(process.argv[2], "node_modules", "stripe-stateful-mock"));
createExpressApp().listen(Number(process.argv[3]), "127.0.0.1", () => console.log("READY"));
process.stdin.on("end", () => process.exit(0)).resume();
