using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Threading.Tasks;

namespace Shotline.Example
{
    /// <summary>
    /// dotnet run -- tune FOLDER PROJECT       uploads a folder per class, tunes, promotes
    /// dotnet run -- predict PROJECT IMAGE…    asks for decisions, as a vision PC would
    /// The address and the API key are read from SHOTLINE_URL and SHOTLINE_KEY.
    /// </summary>
    public static class Program
    {
        private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(2);

        public static int Main(string[] arguments)
        {
            return RunAsync(arguments).GetAwaiter().GetResult();
        }

        private static async Task<int> RunAsync(string[] arguments)
        {
            string address = Environment.GetEnvironmentVariable("SHOTLINE_URL") ?? "http://127.0.0.1:8000";
            string key = Environment.GetEnvironmentVariable("SHOTLINE_KEY") ?? "";
            using (var client = new ShotlineClient(new Uri(address + "/"), key))
            {
                try
                {
                    if (arguments.Length == 3 && arguments[0] == "tune")
                    {
                        await TuneAsync(client, arguments[1], arguments[2]).ConfigureAwait(false);
                        return 0;
                    }
                    if (arguments.Length >= 3 && arguments[0] == "predict")
                    {
                        return await PredictAsync(client, arguments[1], arguments.Skip(2)).ConfigureAwait(false);
                    }
                }
                catch (Exception error) when (error is ShotlineException || error is HttpRequestException || error is IOException)
                {
                    Console.Error.WriteLine("No decision: " + error.Message);
                    return 2;
                }
            }
            Console.Error.WriteLine("tune FOLDER PROJECT, or predict PROJECT IMAGE…");
            return 2;
        }

        private static async Task TuneAsync(ShotlineClient client, string folder, string name)
        {
            List<string> classes = Directory.GetDirectories(folder).OrderBy(path => path, StringComparer.Ordinal).ToList();
            string project = await client.FindProjectAsync(name).ConfigureAwait(false)
                ?? await client.MakeProjectAsync(name, classes.Select(Path.GetFileName)).ConfigureAwait(false);
            foreach (string path in classes)
            {
                string[] images = Directory.GetFiles(path);
                foreach (string line in await client.UploadAsync(project, Path.GetFileName(path), images).ConfigureAwait(false))
                {
                    Console.Error.WriteLine(line);
                }
            }
            string tuning = await client.StartTuningAsync(project).ConfigureAwait(false);
            int version = await client.WaitForVersionAsync(tuning, Console.WriteLine).ConfigureAwait(false);
            await client.PromoteAsync(project, version).ConfigureAwait(false);
            Console.WriteLine($"Version {version} is in production.");
        }

        private static async Task<int> PredictAsync(ShotlineClient client, string name, IEnumerable<string> paths)
        {
            string project = await client.FindProjectAsync(name).ConfigureAwait(false);
            if (project == null)
            {
                throw new ShotlineException($"No project is called '{name}'.");
            }
            bool allOk = true;
            foreach (string path in paths)
            {
                string file = Path.GetFileName(path);
                Decision decision = await client.DecideAsync(project, File.ReadAllBytes(path), file, Deadline).ConfigureAwait(false);
                allOk &= decision.Code == "ok";
                string probability = decision.Probability.ToString("F4", CultureInfo.InvariantCulture);
                Console.WriteLine($"{file}\t{decision.Code}\t{decision.Label}\t{probability}\tversion {decision.Version}");
            }
            return allOk ? 0 : 1;
        }
    }
}
